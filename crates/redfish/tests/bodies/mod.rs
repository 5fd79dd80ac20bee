// SPDX-License-Identifier: AGPL-3.0-or-later
//! Bodies in the forms that BMCs send: compressed, padded, in another encoding, or not JSON at all.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde_json::json;

use super::played::{Bmc as Played, raw, reply};
use super::{INSERT, SLOT, connect, medium, named};

const SYSTEMS: &str = "/redfish/v1/Systems";

fn plain() -> Vec<u8> {
    let mut body = json!({"Members": [{"@odata.id": "/redfish/v1/Systems/1"}], "Name": "?"});
    body["Name"] = "Systems".into();
    body.to_string().into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The result of a visit to a BMC whose collection of systems has this body.
async fn visited(encoding: &'static str, body: Vec<u8>) -> Result<(), String> {
    let played = Played::start(move |seen, _nth| {
        let answer = raw(200, body.clone());
        (seen.path == SYSTEMS).then(|| match encoding {
            "" => answer,
            encoding => answer.header("content-encoding", encoding),
        })
    })
    .await;
    let machine = connect(&played).await.machine(named("SN1")).await;
    machine.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_body_is_read_however_it_is_wrapped() {
    let around = |before: &[u8], after: &[u8]| [before, &plain(), after].concat();
    let latin1 = String::from_utf8(plain()).unwrap().replace("Systems\"}", "\u{1}\"}");
    let latin1: Vec<u8> = latin1.bytes().map(|byte| if byte == 1 { 0xe9 } else { byte }).collect();
    for (what, encoding, body) in [
        ("gzip", "gzip", gzip(&plain())),
        ("gzip by its old name", "x-gzip", gzip(&plain())),
        ("gzip that no header tells", "", gzip(&plain())),
        ("gzip with padding", "gzip", [gzip(&plain()), vec![0; 8]].concat()),
        ("a header that is wrong", "gzip", plain()),
        ("deflate", "deflate", zlib(&plain())),
        ("deflate without a frame", "deflate", deflate(&plain())),
        ("NUL at its end", "", around(b"", b"\0")),
        ("NUL and white space", "", around(b" \r\n", b"\n\0\0 \n")),
        ("a byte order mark", "", around(b"\xef\xbb\xbf", b"")),
        ("a byte that is no UTF-8", "", latin1),
    ] {
        assert_eq!(visited(encoding, body).await, Ok(()), "{what}");
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_told_by_its_type_and_beginning() {
    let large = vec![b' '; 5 << 20];
    for (encoding, body, why) in [
        ("", b"<html>Service Unavailable</html>".to_vec(), "\"<html>Service Unavailable</html>\""),
        ("gzip", gzip(&large), "larger than 4194304 bytes"),
        ("deflate", zlib(&large), "larger than 4194304 bytes"),
        ("", gzip(&large), "larger than 4194304 bytes"),
        ("gzip", gzip(&plain())[..20].to_vec(), "cannot be decompressed"),
    ] {
        let error = visited(encoding, body).await.unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn an_action_that_is_answered_with_no_json_is_judged_by_its_effect() {
    let played = Played::start(|seen, nth| match (seen.method.as_str(), seen.path.as_str(), nth) {
        ("POST", INSERT, _) => Some(raw(200, "<html>OK</html>")),
        ("GET", SLOT, 3..) => Some(reply(200, super::played::slot(SLOT, Some(medium().as_str())))),
        _ => None,
    })
    .await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    bmc.insert(&machine.slots[0], &medium()).await.unwrap();
    assert_eq!(played.count("POST", INSERT), 1);
}
