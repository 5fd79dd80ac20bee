// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests with an identity provider on this host: valid tokens, and tokens that must be refused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::access::Role;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use super::*;

const AUDIENCE: &str = "shoal";

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key with which an issuer signs.
enum Signer {
    /// With the name of its curve.
    Curve(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl Signer {
    fn p256() -> Signer {
        Signer::curve(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")
    }

    fn p384() -> Signer {
        Signer::curve(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")
    }

    fn curve(scheme: &'static EcdsaSigningAlgorithm, name: &'static str) -> Signer {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(scheme, document.as_ref(), &random).unwrap();
        Signer::Curve(pair, name)
    }

    fn ed() -> Signer {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Signer::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    /// Generated with OpenSSL, because ring makes no RSA keys.
    fn rsa() -> Signer {
        let made = std::process::Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
            .args(["-outform", "DER"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // OpenSSL 3.0 writes PKCS #1 as DER, later ones PKCS #8.
        let der = &made.stdout;
        let pair = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
        Signer::Rsa(Box::new(pair.unwrap()))
    }

    fn jwk(&self, kid: &str) -> Value {
        match self {
            Signer::Curve(pair, name) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({
                    "kty": "EC", "crv": name, "kid": kid, "use": "sig", "x": text(x), "y": text(y),
                })
            }
            Signer::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(pair.public_key())})
            }
            Signer::Rsa(pair) => {
                let RsaPublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                json!({
                    "kty": "RSA", "kid": kid, "use": "sig",
                    "n": text(n), "e": text(e),
                })
            }
        }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Signer::Curve(pair, _) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Signer::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let scheme: &dyn RsaEncoding = match algorithm {
                    "RS256" => &RSA_PKCS1_SHA256,
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    other => panic!("{other} is not of RSA"),
                };
                pair.sign(scheme, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let algorithm = header["alg"].as_str().unwrap();
        self.token_of(&header.to_string(), algorithm, &claims.to_string())
    }

    fn token_of(&self, header: &str, algorithm: &str, claims: &str) -> String {
        let message = format!("{}.{}", text(header), text(claims));
        format!("{message}.{}", text(self.sign(algorithm, message.as_bytes())))
    }
}

/// What the provider responds, and how often its keys were requested.
#[derive(Default)]
struct Answers {
    keys: Vec<Value>,
    /// Replaces the issuer's own name.
    issuer: Option<String>,
    /// Replaces the location of its keys.
    keys_at: Option<String>,
    asked: u32,
}

struct Provider {
    url: String,
    answers: Arc<Mutex<Answers>>,
}

impl Provider {
    async fn start(keys: Vec<Value>) -> Provider {
        let (provider, listener, router) = Provider::at("http", keys);
        tokio::spawn(async move {
            axum_server::from_tcp(listener)
                .unwrap()
                .serve(router.into_make_service())
                .await
                .unwrap()
        });
        provider
    }

    /// Its certificate is its own CA.
    async fn start_with_tls(keys: Vec<Value>) -> (Provider, String) {
        let (provider, listener, router) = Provider::at("https", keys);
        let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        let pem = key.cert.pem();
        let tls = axum_server::tls_rustls::RustlsConfig::from_pem(
            pem.clone().into_bytes(),
            key.signing_key.serialize_pem().into_bytes(),
        )
        .await
        .unwrap();
        let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
        tokio::spawn(async move { server.serve(router.into_make_service()).await.unwrap() });
        (provider, pem)
    }

    fn at(scheme: &str, keys: Vec<Value>) -> (Provider, std::net::TcpListener, Router) {
        crate::serve::install_crypto();
        let answers = Arc::new(Mutex::new(Answers { keys, ..Answers::default() }));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("{scheme}://{}/realm", listener.local_addr().unwrap());
        let (own, told, shown) = (url.clone(), answers.clone(), answers.clone());
        let (broken, padded) = (answers.clone(), answers.clone());
        let router = Router::new()
            .route(
                "/realm/.well-known/openid-configuration",
                get(move || async move {
                    let told = told.lock().unwrap();
                    let issuer = told.issuer.clone().unwrap_or(own.clone());
                    let keys_at = told.keys_at.clone().unwrap_or(format!("{own}/keys"));
                    Json(json!({"issuer": issuer, "jwks_uri": keys_at}))
                }),
            )
            .route("/realm/moved", get(async || Redirect::temporary("/realm/keys")))
            .route(
                "/realm/broken",
                get(move || async move {
                    let keys = &broken.lock().unwrap().keys;
                    (StatusCode::INTERNAL_SERVER_ERROR, json!({"keys": keys}).to_string())
                }),
            )
            .route(
                "/realm/padded/{bytes}",
                get(move |axum::extract::Path(bytes): axum::extract::Path<usize>| async move {
                    let keys = &padded.lock().unwrap().keys;
                    let text = json!({"keys": keys}).to_string();
                    format!("{text}{}", " ".repeat(bytes - text.len()))
                }),
            )
            .route(
                "/realm/keys",
                get(move || async move {
                    let mut answers = shown.lock().unwrap();
                    answers.asked += 1;
                    Json(json!({"keys": answers.keys}))
                }),
            );
        (Provider { url, answers }, listener, router)
    }

    fn settings(&self) -> Settings {
        Settings {
            issuer: self.url.clone(),
            audience: AUDIENCE.into(),
            claim: "groups".into(),
            given: vec![
                (RoleBinding::Role(Role::Reader), "all".into()),
                (RoleBinding::Role(Role::Admin), "root".into()),
                (RoleBinding::Role(Role::Operator), "sre".into()),
                (RoleBinding::Publish("ci/".parse().unwrap()), "builders".into()),
            ],
            keys: Source::Discovery { ca_file: None },
        }
    }

    fn oidc(&self) -> Oidc {
        Oidc::new(self.settings()).unwrap()
    }

    /// Claims of a person in these groups.
    fn claims(&self, groups: &[&str]) -> Value {
        let now = now();
        json!({
            "iss": self.url, "aud": AUDIENCE, "sub": "1234", "exp": now + 300, "nbf": now - 5,
            "preferred_username": "ada", "groups": groups,
        })
    }
}

fn now() -> i64 {
    crate::time::now_ms() / 1000
}

/// The claims with one of them changed.
fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut other = claims.clone();
    if value.is_null() {
        other.as_object_mut().unwrap().remove(name);
    } else {
        other[name] = value;
    }
    other
}

#[tokio::test]
async fn a_good_token_of_every_kind_of_key_names_a_person_with_the_highest_role() {
    let (p256, p384, ed, rsa) = (Signer::p256(), Signer::p384(), Signer::ed(), Signer::rsa());
    let keys = vec![p256.jwk("a"), p384.jwk("d"), ed.jwk("b"), rsa.jwk("c")];
    let provider = Provider::start(keys).await;
    let oidc = provider.oidc();
    let rights = Rights { role: Role::Admin, push: Vec::new() };
    let ada = Person { who: "oidc 1234 ada".into(), rights };
    let claims = provider.claims(&["all", "root", "sre"]);
    let rsas = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    let others = [(&p256, "ES256", "a"), (&p384, "ES384", "d"), (&ed, "EdDSA", "b")];
    let all = others.into_iter().chain(rsas.map(|algorithm| (&rsa, algorithm, "c")));
    assert_eq!(all.clone().count(), ALGORITHMS.len());
    for (signer, algorithm, kid) in all {
        let token = signer.token(&json!({"alg": algorithm, "kid": kid}), &claims);
        assert!(is_one(&token));
        assert_eq!(oidc.identify(&token).await.as_ref(), Ok(&ada), "{algorithm}");
    }
    // The only key of its kind needs no id, an audience may be one of several, and a role need not be in a list.
    let header = json!({"alg": "EdDSA"});
    for other in [
        with(&claims, "aud", json!(["x", AUDIENCE])),
        with(&claims, "groups", json!("root")),
        claims.clone(),
    ] {
        assert_eq!(oidc.identify(&ed.token(&header, &other)).await.as_ref(), Ok(&ada));
    }
    assert_eq!(provider.answers.lock().unwrap().asked, 1, "keys are kept");
}

#[tokio::test]
async fn what_is_not_signed_for_us_now_by_the_issuer_is_refused() {
    let (own, others, rsa) = (Signer::p256(), Signer::p256(), Signer::rsa());
    let sealer = Signer::p256();
    let mut encrypts = sealer.jwk("enc");
    encrypts["use"] = "enc".into();
    let secret = json!({"kty": "oct", "kid": "secret", "k": text("secret")});
    let keys = vec![own.jwk("a"), rsa.jwk("c"), encrypts, secret];
    let provider = Provider::start(keys).await;
    let oidc = provider.oidc();
    let good = provider.claims(&["root"]);
    let es256 = json!({"alg": "ES256", "kid": "a"});
    let unsigned = format!("{}.{}.", text(r#"{"alg":"none"}"#), text(good.to_string()));
    let by_secret = |kid: &str| {
        let header = json!({"alg": "HS256", "kid": kid});
        let message = format!("{}.{}", text(header.to_string()), text(good.to_string()));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
        let tag = ring::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", text(tag))
    };
    let changed = {
        let token = own.token(&es256, &provider.claims(&["all"]));
        let parts: Vec<&str> = token.split('.').collect();
        format!("{}.{}.{}", parts[0], text(good.to_string()), parts[2])
    };
    for (what, token) in [
        ("unsigned", unsigned),
        ("signed with a secret that the issuer's keys name", by_secret("secret")),
        ("signed with a public key as a secret", by_secret("a")),
        ("of somebody else", others.token(&es256, &good)),
        ("of an unknown key", own.token(&json!({"alg": "ES256", "kid": "x"}), &good)),
        ("of a key that encrypts", sealer.token(&json!({"alg": "ES256", "kid": "enc"}), &good)),
        ("of another kind of key", rsa.token(&json!({"alg": "RS256", "kid": "a"}), &good)),
        ("with other claims than were signed", changed),
        ("of another issuer", own.token(&es256, &with(&good, "iss", "https://x".into()))),
        ("of no issuer", own.token(&es256, &with(&good, "iss", Value::Null))),
        ("for others", own.token(&es256, &with(&good, "aud", "x".into()))),
        ("for nobody", own.token(&es256, &with(&good, "aud", Value::Null))),
        ("expired", own.token(&es256, &with(&good, "exp", (now() - 120).into()))),
        ("without an end", own.token(&es256, &with(&good, "exp", Value::Null))),
        ("with an end that is no number", own.token(&es256, &with(&good, "exp", "9e9".into()))),
        ("not good yet", own.token(&es256, &with(&good, "nbf", (now() + 120).into()))),
        ("of nobody", own.token(&es256, &with(&good, "sub", Value::Null))),
        ("cut", own.token(&es256, &good)[..40].to_owned()),
        ("with a member that must be understood", {
            let header = json!({"alg": "ES256", "kid": "a", "crit": ["exp"], "exp": 0});
            own.token(&header, &good)
        }),
        ("with an empty list of them", {
            own.token(&json!({"alg": "ES256", "kid": "a", "crit": []}), &good)
        }),
        ("not in Base64 by its own word", {
            own.token(&json!({"alg": "ES256", "kid": "a", "b64": false}), &good)
        }),
        ("compressed by its own word", {
            own.token(&json!({"alg": "ES256", "kid": "a", "zip": "DEF"}), &good)
        }),
        ("within another", own.token(&json!({"alg": "ES256", "kid": "a", "cty": "JWT"}), &good)),
        ("with two algorithms", {
            own.token_of(r#"{"alg":"none","kid":"a","alg":"ES256"}"#, "ES256", &good.to_string())
        }),
        ("with a claim that comes twice", {
            let twice = good.to_string().replacen('{', r#"{"sub":"root","#, 1);
            own.token_of(&es256.to_string(), "ES256", &twice)
        }),
        ("with a member within a claim that comes twice", {
            let twice = good.to_string().replacen('{', r#"{"x":[{"y":1,"y":2}],"#, 1);
            own.token_of(&es256.to_string(), "ES256", &twice)
        }),
        ("long", own.token(&es256, &with(&good, "x", "x".repeat(20_000).into()))),
    ] {
        let refused = oidc.identify(&token).await.expect_err(what);
        assert!(matches!(refused, Refused::Wrong(_)), "{what}: {refused}");
    }
    assert!(oidc.identify(&own.token(&es256, &good)).await.is_ok(), "the base of all of them");
}

#[tokio::test]
async fn a_person_without_a_role_is_told_what_would_give_one() {
    let signer = Signer::ed();
    let provider = Provider::start(vec![signer.jwk("a")]).await;
    let token = |claims: &Value| signer.token(&json!({"alg": "EdDSA", "kid": "a"}), claims);
    let oidc = provider.oidc();
    for claims in [
        provider.claims(&["cooks"]),
        with(&provider.claims(&[]), "groups", json!(7)),
        with(&provider.claims(&[]), "groups", Value::Null),
    ] {
        let refused = oidc.identify(&token(&claims)).await.unwrap_err().to_string();
        assert!(refused.contains("none of \"groups\" is one of all, root, sre"), "{refused}");
    }
    // Roles inside another claim, and a claim with dots in its name.
    let settings = |claim: &str| Settings { claim: claim.into(), ..provider.settings() };
    let deep = with(&provider.claims(&[]), "realm_access", json!({"roles": ["sre"]}));
    let dotted = with(&provider.claims(&[]), "https://x.example/roles", json!(["sre"]));
    for (claim, claims) in [("realm_access.roles", deep), ("https://x.example/roles", dotted)] {
        let oidc = Oidc::new(settings(claim)).unwrap();
        assert_eq!(
            oidc.identify(&token(&claims)).await.unwrap().rights.role,
            Role::Operator,
            "{claim}"
        );
    }
}

#[tokio::test]
async fn a_new_key_is_found_and_tokens_with_made_up_keys_do_not_flood_the_issuer() {
    let (old, new) = (Signer::ed(), Signer::ed());
    let provider = Provider::start(vec![old.jwk("old")]).await;
    let oidc = provider.oidc();
    let claims = provider.claims(&["all"]);
    let token =
        |signer: &Signer, kid: &str| signer.token(&json!({"alg": "EdDSA", "kid": kid}), &claims);
    let asked = || provider.answers.lock().unwrap().asked;
    assert!(oidc.identify(&token(&old, "old")).await.is_ok());
    provider.answers.lock().unwrap().keys = vec![new.jwk("new")];
    for made_up in 0..50 {
        assert!(oidc.identify(&token(&new, &format!("x{made_up}"))).await.is_err());
    }
    assert_eq!(asked(), 1, "the last look was just now");
    let later = |secs| Instant::now() + Duration::from_secs(secs);
    assert!(oidc.identify_at(&token(&new, "new"), later(31)).await.is_ok());
    assert!(oidc.identify_at(&token(&old, "old"), later(32)).await.is_err(), "it was withdrawn");
    assert_eq!(asked(), 2);
    // An issuer that does not respond does no harm at first, but does after a day.
    provider.answers.lock().unwrap().issuer = Some("https://somebody.else".into());
    assert!(oidc.identify_at(&token(&new, "new"), later(2 * 3600)).await.is_ok());
    let refused = oidc.identify_at(&token(&new, "new"), later(25 * 3600)).await.unwrap_err();
    assert!(matches!(refused, Refused::NoKeys(_)), "{refused}");
}

#[tokio::test]
async fn without_keys_it_is_not_the_token_that_is_wrong() {
    let signer = Signer::ed();
    let provider = Provider::start(vec![signer.jwk("a")]).await;
    let token = signer.token(&json!({"alg": "EdDSA", "kid": "a"}), &provider.claims(&["all"]));
    provider.answers.lock().unwrap().issuer = Some("https://somebody.else".into());
    let refused = provider.oidc().identify(&token).await.unwrap_err();
    assert!(matches!(&refused, Refused::NoKeys(why) if why.contains("somebody.else")), "{refused}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jwks.json");
    let oidc = Oidc::new(Settings { keys: Source::File(file.clone()), ..provider.settings() });
    std::fs::write(&file, json!({"keys": [signer.jwk("a")]}).to_string()).unwrap();
    assert_eq!(oidc.unwrap().identify(&token).await.unwrap().rights.role, Role::Reader);
}

#[tokio::test]
async fn keys_are_looked_for_again_after_an_hour_and_none_is_used_for_a_day() {
    let signer = Signer::ed();
    let provider = Provider::start(vec![signer.jwk("a")]).await;
    let oidc = provider.oidc();
    let claims = provider.claims(&["all"]);
    let token = |kid: &str| signer.token(&json!({"alg": "EdDSA", "kid": kid}), &claims);
    let (good, unknown) = (token("a"), token("b"));
    let begin = Instant::now();
    let day_ms = 24 * 3600 * 1000;
    for (token, at_ms, asked) in [
        (&good, 0, 1),
        // An unknown key is fetched at most twice a minute.
        (&unknown, 29_999, 1),
        (&unknown, 30_000, 2),
        (&unknown, 59_999, 2),
        (&good, 30_000 + 3_599_999, 2),
        (&good, 30_000 + 3_600_000, 3),
    ] {
        let known = oidc.identify_at(token, begin + Duration::from_millis(at_ms)).await;
        assert_eq!(known.is_ok(), *token == good, "at {at_ms}");
        assert_eq!(provider.answers.lock().unwrap().asked, asked, "at {at_ms}");
    }
    provider.answers.lock().unwrap().issuer = Some("https://somebody.else".into());
    let last = begin + Duration::from_millis(30_000 + 3_600_000);
    let at = |ms| oidc.identify_at(&good, last + Duration::from_millis(ms));
    assert!(at(day_ms - 1).await.is_ok());
    assert!(matches!(at(day_ms).await, Err(Refused::NoKeys(_))));
}

#[tokio::test]
async fn a_key_is_for_what_it_says_and_without_its_name_the_only_one() {
    let (one, two, rsa) = (Signer::ed(), Signer::ed(), Signer::rsa());
    let mut bound = rsa.jwk("c");
    bound["alg"] = "RS512".into();
    let provider = Provider::start(vec![one.jwk("a"), two.jwk("b"), bound]).await;
    let oidc = provider.oidc();
    let claims = provider.claims(&["all"]);
    for (signer, header, expected) in [
        (&one, json!({"alg": "EdDSA", "kid": "a"}), true),
        (&two, json!({"alg": "EdDSA", "kid": "b"}), true),
        (&two, json!({"alg": "EdDSA", "kid": "a"}), false),
        (&one, json!({"alg": "EdDSA"}), false),
        (&rsa, json!({"alg": "RS512", "kid": "c"}), true),
        (&rsa, json!({"alg": "RS512"}), true),
        (&rsa, json!({"alg": "RS256", "kid": "c"}), false),
        (&rsa, json!({"alg": "PS512", "kid": "c"}), false),
    ] {
        let known = oidc.identify(&signer.token(&header, &claims)).await;
        assert_eq!(known.is_ok(), expected, "{header}: {known:?}");
    }
}

#[tokio::test]
async fn keys_come_straight_from_where_the_provider_says_and_are_not_long() {
    let signer = Signer::ed();
    let provider = Provider::start(vec![signer.jwk("a")]).await;
    let (over_tls, pem) = Provider::start_with_tls(vec![signer.jwk("a")]).await;
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, pem).unwrap();
    let keys = Source::Discovery { ca_file: Some(ca_file) };
    let safe = Settings { keys, ..over_tls.settings() };
    for (of, settings, keys_at, trouble) in [
        (&provider, provider.settings(), format!("{}/keys", provider.url), ""),
        (&provider, provider.settings(), format!("{}/padded/1048576", provider.url), ""),
        (&provider, provider.settings(), format!("{}/padded/1048577", provider.url), "too long"),
        (&provider, provider.settings(), format!("{}/moved", provider.url), "understand"),
        (&provider, provider.settings(), format!("{}/broken", provider.url), "500"),
        (&provider, provider.settings(), format!("{}/none", provider.url), "404"),
        (&over_tls, safe.clone(), format!("{}/keys", over_tls.url), ""),
        // An attacker in between could serve keys of their own over plain HTTP.
        (&over_tls, safe, format!("{}/keys", provider.url), "ask http://"),
    ] {
        of.answers.lock().unwrap().keys_at = Some(keys_at.clone());
        let token = signer.token(&json!({"alg": "EdDSA", "kid": "a"}), &of.claims(&["all"]));
        match Oidc::new(settings).unwrap().identify(&token).await {
            Ok(_) => assert_eq!(trouble, "", "{keys_at}"),
            Err(Refused::NoKeys(why)) => {
                assert!(!trouble.is_empty() && why.contains(trouble), "{keys_at}: {why}");
            }
            Err(other) => panic!("{keys_at}: {other}"),
        }
    }
}

#[tokio::test]
async fn an_issuers_name_may_end_with_a_slash() {
    let signer = Signer::ed();
    let provider = Provider::start(vec![signer.jwk("a")]).await;
    let issuer = format!("{}/", provider.url);
    provider.answers.lock().unwrap().issuer = Some(issuer.clone());
    let oidc = Oidc::new(Settings { issuer: issuer.clone(), ..provider.settings() }).unwrap();
    let header = json!({"alg": "EdDSA", "kid": "a"});
    let claims = provider.claims(&["all"]);
    let token = signer.token(&header, &with(&claims, "iss", issuer.into()));
    assert!(oidc.identify(&token).await.is_ok());
    assert!(oidc.identify(&signer.token(&header, &claims)).await.is_err(), "another issuer");
}

#[tokio::test]
async fn only_a_provider_with_the_right_certificate_is_asked_for_its_keys() {
    let signer = Signer::ed();
    let (provider, pem) = Provider::start_with_tls(vec![signer.jwk("a")]).await;
    let token = signer.token(&json!({"alg": "EdDSA", "kid": "a"}), &provider.claims(&["all"]));
    let dir = tempfile::tempdir().unwrap();
    let trusting = |name: &str, pem: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, pem).unwrap();
        let keys = Source::Discovery { ca_file: Some(file) };
        Oidc::new(Settings { keys, ..provider.settings() })
    };
    let (_, other) = Provider::start_with_tls(vec![]).await;
    for strange in [trusting("other.pem", &other).unwrap(), provider.oidc()] {
        let refused = strange.identify(&token).await.unwrap_err();
        let is_told = matches!(&refused, Refused::NoKeys(why) if why.contains("certificate"));
        assert!(is_told, "{refused}");
    }
    assert_eq!(provider.answers.lock().unwrap().asked, 0);
    let oidc = trusting("ca.pem", &pem).unwrap();
    assert_eq!(oidc.identify(&token).await.unwrap().rights.role, Role::Reader);
    let error = format!("{:#}", trusting("empty.pem", "").err().unwrap());
    assert!(error.contains("empty.pem"), "{error}");
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_no_wrong_token_and_keeps_nobody_elses_out() {
    let signer = Signer::ed();
    let provider = Provider::start(vec![signer.jwk("a")]).await;
    provider.answers.lock().unwrap().issuer = Some("https://somebody.else".into());
    let settings = provider.settings();
    let dir = crate::tests::temp_dir();
    let controller = crate::tests::Controller::start_with(dir.path(), |own| {
        own.oidc = Some(settings);
    })
    .await;
    let token = signer.token(&json!({"alg": "EdDSA", "kid": "a"}), &provider.claims(&["all"]));
    let url = format!("{}/api/v1/jobs", controller.url);
    let heard = reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap();
    assert_eq!(heard.status(), 503);
    let problem: Value = heard.json().await.unwrap();
    assert_eq!(problem["type"], "urn:shoal:problem:identity-provider");
    assert!(problem["detail"].as_str().unwrap().contains("somebody.else"), "{problem}");
    // The controller's own tokens still work.
    let new = json!({"role": "reader", "name": "watcher"});
    let made = controller.request("POST", "/api/v1/tokens").json(&new).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    let own = controller.request("GET", "/api/v1/jobs");
    let own = own.bearer_auth(made["secret"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(own.status(), 200);
}

#[tokio::test]
async fn tokens_of_the_provider_open_what_their_role_may_and_are_in_the_audit_log() {
    let signer = Signer::p256();
    let provider = Provider::start(vec![signer.jwk("a")]).await;
    let dir = crate::tests::temp_dir();
    let settings = provider.settings();
    let controller = crate::tests::Controller::start_with(dir.path(), |own| {
        own.oidc = Some(settings);
    })
    .await;
    let ask = async |groups: &[&str], method: &str, path: &str| {
        let token = signer.token(&json!({"alg": "ES256", "kid": "a"}), &provider.claims(groups));
        let url = format!("{}{path}", controller.url);
        let request = reqwest::Client::new().request(method.parse().unwrap(), url);
        request.bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(&["all"], "GET", "/api/v1/jobs").await, 200);
    assert_eq!(ask(&["all"], "DELETE", "/api/v1/servers/SN1").await, 403);
    assert_eq!(ask(&["root"], "DELETE", "/api/v1/servers/SN1").await, 404);
    assert_eq!(ask(&["cooks"], "GET", "/api/v1/jobs").await, 403);
    assert_eq!(ask(&["sre"], "GET", "/v2/").await, 200);
    // A group of publishers pushes below its prefix, whatever other rights its members have.
    let (own, others) = ("/v2/ci/app/blobs/uploads/", "/v2/os-images/debian/blobs/uploads/");
    for (groups, path, expected) in [
        (&["builders"][..], own, 202),
        (&["builders"], others, 403),
        (&["builders", "all"], own, 202),
        (&["builders", "sre"], own, 202),
        (&["builders", "sre"], others, 403),
        (&["sre"], own, 403),
    ] {
        assert_eq!(ask(groups, "POST", path).await, expected, "{groups:?} {path}");
    }
    assert_eq!(ask(&["builders"], "GET", "/api/v1/jobs").await, 403);
    assert_eq!(ask(&["builders", "all"], "GET", "/api/v1/jobs").await, 200);
    let audit = controller.get("/api/v1/audit").await;
    let seen: Vec<_> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                entry["who"].as_str().unwrap(),
                entry["role"].as_str().unwrap(),
                entry["status"].as_u64().unwrap(),
            )
        })
        .collect();
    let who = "oidc 1234 ada";
    assert_eq!(seen, [(who, "reader", 403), (who, "admin", 404)]);
}

#[tokio::test]
async fn the_audit_log_names_who_it_is_for_good_and_then_for_readers() {
    let signer = Signer::ed();
    let provider = Provider::start(vec![signer.jwk("a")]).await;
    let oidc = provider.oidc();
    let good = provider.claims(&["all"]);
    let nameless = with(&good, "preferred_username", Value::Null);
    let long = format!("oidc {}", "é".repeat(NAME_CHARS_MAX - "oidc ".len()));
    for (claims, expected) in [
        (good.clone(), "oidc 1234 ada"),
        (with(&good, "sub", "ada".into()), "oidc ada"),
        (nameless.clone(), "oidc 1234"),
        (with(&nameless, "email", "ada@example.org".into()), "oidc 1234 ada@example.org"),
        (with(&good, "email", "ada@example.org".into()), "oidc 1234 ada"),
        // A name cannot add lines to a log.
        (with(&good, "preferred_username", "a\nb\u{1b}c".into()), "oidc 1234 a?b?c"),
        (with(&good, "sub", "é".repeat(500).into()), &long),
    ] {
        let token = signer.token(&json!({"alg": "EdDSA", "kid": "a"}), &claims);
        assert_eq!(oidc.identify(&token).await.unwrap().who, expected);
    }
}

#[tokio::test]
async fn a_token_may_be_as_long_as_its_limit_and_no_longer() {
    let signer = Signer::ed();
    let provider = Provider::start(vec![signer.jwk("a")]).await;
    let oidc = provider.oidc();
    let claims = provider.claims(&["all"]);
    let padded = |bytes: usize| {
        let claims = with(&claims, "x", "x".repeat(bytes).into());
        signer.token(&json!({"alg": "EdDSA", "kid": "a"}), &claims)
    };
    let bytes = (10_000..).find(|bytes| padded(*bytes).len() >= TOKEN_BYTES_MAX).unwrap();
    assert_eq!(padded(bytes).len(), TOKEN_BYTES_MAX);
    assert!(oidc.identify(&padded(bytes)).await.is_ok());
    let refused = oidc.identify(&padded(bytes + 1)).await.unwrap_err().to_string();
    assert!(refused.contains("longer than 16384 bytes"), "{refused}");
}

#[test]
fn tokens_of_the_provider_look_like_nobody_elses() {
    for (token, expected) in [
        ("eyJhbGciOiJub25lIn0.e30.", true),
        ("eyJhbGciOiJub25lIn0.e30", false),
        ("eyJhbGciOiJub25lIn0.e30.x.y.z", false),
        ("shp_admin_0.0.0", false),
        ("shp_admin_001122334455_00", false),
        ("..", false),
        ("", false),
    ] {
        assert_eq!(is_one(token), expected, "{token}");
    }
}

#[test]
fn an_issuer_speaks_tls_or_is_on_this_host() {
    for good in [
        "https://id.example",
        "https://id.example/realm",
        "https://localhost/realm",
        "http://localhost:8080/realm",
        "http://127.0.0.1:8080",
        "http://[::1]:8080/",
    ] {
        assert_eq!(check_issuer(good).as_deref(), Ok(good));
    }
    for bad in [
        "id.example",
        "http://id.example",
        "http://127.0.0.1.id.example",
        "http://localhost@id.example",
        "ftp://id.example",
        "ftp://localhost",
        "https://id.example/?realm=x",
        "https://id.example/#realm",
    ] {
        assert!(check_issuer(bad).is_err(), "{bad}");
    }
}
