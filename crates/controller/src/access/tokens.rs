// SPDX-License-Identifier: AGPL-3.0-or-later
//! The text of a token: `shp_ROLE_ID_SECRET`. The prefix lets secret scanners find one that was published by mistake.
//! Lists and logs show the id. The last digits are a checksum, which detects a truncated or mistyped token without
//! the database.

use anyhow::anyhow;
use api::access::Role;
use ring::rand::{SecureRandom, SystemRandom};

use crate::keys::sha256;

const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;
/// Hex digits; one wrong text in four thousand million passes the check.
const CHECKSUM_DIGITS: usize = 8;

/// A new token; its text is not stored anywhere.
pub struct Minted {
    pub id: String,
    pub text: String,
}

pub fn mint(role: Role) -> anyhow::Result<Minted> {
    let mut random = [0; ID_BYTES + SECRET_BYTES];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| anyhow!("the kernel gives no random numbers"))?;
    let (id, secret) = random.split_at(ID_BYTES);
    let id = hex::encode(id);
    let text = format!("shp_{}_{id}_{}", role.as_str(), hex::encode(secret));
    let checksum = checksum(&text);
    Ok(Minted { id, text: text + &checksum })
}

/// Returns the id in a token's text, if the text has the form and checksum of a token.
pub fn id(text: &str) -> Option<&str> {
    let (body, sum) = text.split_at_checked(text.len().checked_sub(CHECKSUM_DIGITS)?)?;
    if checksum(body) != sum {
        return None;
    }
    let (_role, rest) = body.strip_prefix("shp_")?.split_once('_')?;
    let (id, secret) = rest.split_once('_')?;
    (id.len() == 2 * ID_BYTES && secret.len() == 2 * SECRET_BYTES).then_some(id)
}

fn checksum(text: &str) -> String {
    let mut sum = hex::encode(sha256(text.as_bytes()));
    sum.truncate(CHECKSUM_DIGITS);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_id_and_a_damaged_one_names_none() {
        for role in Role::ALL {
            let Minted { id: made, text } = mint(role).unwrap();
            assert!(text.starts_with(&format!("shp_{}_{made}_", role.as_str())), "{text}");
            assert_eq!(id(&text), Some(made.as_str()));
            for at in 0..text.len() {
                let mut wrong = text.clone().into_bytes();
                wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
                assert_eq!(id(std::str::from_utf8(&wrong).unwrap()), None);
                assert_eq!(id(&text[..at]), None);
            }
        }
        assert_ne!(mint(Role::Admin).unwrap().text, mint(Role::Admin).unwrap().text);
        assert_eq!(id("é234567"), None);
    }

    #[test]
    fn a_text_of_another_form_names_no_id_whatever_its_checksum_says() {
        let (own, secret) = ("001122334455", "ab".repeat(SECRET_BYTES));
        for (body, expected) in [
            (format!("shp_admin_{own}_{secret}"), Some(own)),
            (format!("shp_admin_{own}0_{secret}"), None),
            (format!("shp_admin_{own}_{secret}0"), None),
            (format!("shp_admin_{own}_"), None),
            (format!("shp_admin__{secret}"), None),
            (format!("shq_admin_{own}_{secret}"), None),
            (format!("shp_admin_{secret}"), None),
        ] {
            let text = format!("{body}{}", checksum(&body));
            assert_eq!(id(&text), expected, "{text}");
        }
    }
}
