// SPDX-License-Identifier: AGPL-3.0-or-later
//! Role bindings: the rights that values of a claim (identity provider) and names of a certificate (CA) give. They
//! are set at the start; nothing about a person is stored.

use api::access::Role;
use registry::Prefix;

/// The right that one value or one name gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleBinding {
    /// The role reader, operator or admin.
    Role(Role),
    /// May push and pull below this prefix of the registry.
    Publish(Prefix),
}

/// All rights of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    pub role: Role,
    /// Prefixes of the registry that are permitted in addition to the role.
    pub push: Vec<String>,
}

impl Rights {
    /// Returns the highest role and every prefix. `None` if there is no right at all.
    pub fn of<'a>(bindings: impl IntoIterator<Item = &'a RoleBinding>) -> Option<Rights> {
        let (mut role, mut push) = (None, Vec::new());
        for binding in bindings {
            match binding {
                RoleBinding::Role(given) => role = role.max(Some(*given)),
                RoleBinding::Publish(prefix) => push.push(prefix.as_str().to_owned()),
            }
        }
        let role = role.or((!push.is_empty()).then_some(Role::Publisher))?;
        Some(Rights { role, push })
    }
}

/// Parses the role of `ROLE=…`, and returns the rest. `form` is the error text that shows the whole form.
pub fn role<'a>(text: &'a str, form: &str) -> Result<(RoleBinding, &'a str), String> {
    let (role, rest) = text.split_once('=').ok_or(form)?;
    let role = [Role::Reader, Role::Operator, Role::Admin]
        .into_iter()
        .find(|known| known.as_str() == role)
        .ok_or("the role is reader, operator or admin; publishers are told by their prefixes")?;
    Ok((RoleBinding::Role(role), rest))
}

/// Parses the prefix of `PREFIX=…`, likewise.
pub fn publish<'a>(text: &'a str, form: &str) -> Result<(RoleBinding, &'a str), String> {
    let (prefix, rest) = text.split_once('=').ok_or(form)?;
    let prefix = prefix.parse().map_err(|error: registry::InvalidPrefix| error.to_string())?;
    Ok((RoleBinding::Publish(prefix), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_role_counts_and_every_prefix_does() {
        let binding = |text: &str| match text.ends_with('/') {
            true => publish(&format!("{text}=x"), "").unwrap().0,
            false => role(&format!("{text}=x"), "").unwrap().0,
        };
        let rights = |bindings: &[&str]| {
            let bindings: Vec<RoleBinding> = bindings.iter().map(|text| binding(text)).collect();
            Rights::of(&bindings).map(|rights| (rights.role, rights.push.concat()))
        };
        assert_eq!(rights(&[]), None);
        assert_eq!(rights(&["reader", "admin", "operator"]), Some((Role::Admin, String::new())));
        assert_eq!(rights(&["ci/", "tools/"]), Some((Role::Publisher, "ci/tools/".into())));
        assert_eq!(rights(&["ci/", "reader"]), Some((Role::Reader, "ci/".into())));
        for bad in ["publisher=x", "root=x", "reader", "=x"] {
            assert!(role(bad, "").is_err(), "{bad}");
        }
        for bad in ["../=x", "ci/", "=x"] {
            assert!(publish(bad, "").is_err(), "{bad}");
        }
    }
}
