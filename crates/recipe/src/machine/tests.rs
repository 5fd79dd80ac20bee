// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tables of BMCs and boards that belong to the same machine, and of others that do not.

use super::*;

const UUID: &str = "30373237-3132-584d-5132-333430353034";
const SWAPPED: &str = "37323730-3231-4d58-5132-333430353034";
const OTHER: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
/// Encodes the tag `ABC1234`.
const DELL: &str = "4c4c4544-0042-4310-8031-c1c04f323334";

fn bmc(serial: &str, uuid: &str) -> Names {
    Names::of_bmc(&BmcFacts { serial, uuid, ..BmcFacts::default() })
}

fn board(serial: &str, uuid: &str) -> Names {
    Names::of_board(&BoardFacts { serial, uuid, ..BoardFacts::default() })
}

fn dell_bmc(sku: &str, uuid: &str) -> Names {
    let serial = "CNEXAMPLE00001";
    Names::of_bmc(&BmcFacts { serial, sku, uuid, sku_is_service_tag: true, service_tags: &[] })
}

fn dell_board(serial: &str, board_serial: &str, uuid: &str) -> Names {
    Names::of_board(&BoardFacts {
        manufacturer: "Dell Inc.",
        serial,
        sku: "SKU=NotProvided;ModelName=PowerEdge R660",
        uuid,
        board_serial,
        chassis_serial: serial,
    })
}

/// The result as a short text, with the names that match.
fn outcome(registered: &str, bmc: &Names, board: &Names, ignores_uuid: bool) -> String {
    match same_machine(registered, bmc, board, ignores_uuid) {
        Ok(Match { of_bmc, of_board }) => {
            let of_bmc = of_bmc.map_or("nothing", |name| name.kind.words());
            format!("{of_bmc} = {}", of_board.kind.words())
        }
        Err(Mismatch::NotTheBmcs { .. }) => "not the BMC's".into(),
        Err(Mismatch::OtherUuid { .. }) => "other UUID".into(),
        Err(Mismatch::OnlyUuid { .. }) => "only UUID".into(),
        Err(Mismatch::NothingInCommon { .. }) => "nothing".into(),
    }
}

#[test]
fn a_dell_is_one_machine_by_each_of_its_names() {
    let (tag, ppid) = ("ABC1234", "CNEXAMPLE00001");
    let both = ".ABC1234.CNEXAMPLE00001.";
    let own = dell_board(tag, both, DELL);
    for (registered, bmc, board, expected) in [
        (tag, dell_bmc(tag, DELL), own.clone(), "service tag = service tag"),
        (ppid, dell_bmc(tag, DELL), own.clone(), "board serial = board serial"),
        (DELL, dell_bmc(tag, DELL), own.clone(), "UUID = UUID"),
        // The board's own number is missing: the tag is common.
        (ppid, dell_bmc(tag, DELL), dell_board(tag, "", DELL), "service tag = service tag"),
        (ppid, dell_bmc(tag, ""), dell_board(tag, "", ""), "service tag = service tag"),
        (ppid, dell_bmc(tag, ""), dell_board("", both, ""), "board serial = board serial"),
        // The tag is only in the UUID.
        (tag, bmc(ppid, DELL), own.clone(), "service tag in the UUID = service tag"),
        (tag, dell_bmc("", DELL), own.clone(), "service tag in the UUID = service tag"),
        // A tag from the UUID is not evidence in addition to the UUID.
        ("SN1", bmc("SN1", DELL), board("SN2", DELL), "only UUID"),
        ("SN1", bmc("SN1", ""), board("SN2", DELL), "nothing"),
        ("ABC1234", bmc("ABC1234", ""), board("SN2", DELL), "serial = service tag in the UUID"),
        (ppid, dell_bmc(tag, ""), dell_board("XYZ9876", "", DELL), "nothing"),
        (tag, dell_bmc("", ""), own.clone(), "not the BMC's"),
        ("XYZ9876", dell_bmc(tag, DELL), own.clone(), "not the BMC's"),
        // Another Dell.
        (tag, dell_bmc(tag, DELL), dell_board("XYZ9876", ".XYZ9876.CN2.", OTHER), "other UUID"),
        (tag, dell_bmc(tag, ""), dell_board("XYZ9876", ".XYZ9876.CN2.", OTHER), "nothing"),
        (tag, dell_bmc(tag, DELL), dell_board("XYZ9876", ".XYZ9876.CN2.", ""), "nothing"),
    ] {
        assert_eq!(
            outcome(registered, &bmc, &board, false),
            expected,
            "{registered}: {bmc} / {board}"
        );
    }
}

#[test]
fn the_uuid_decides_where_both_tell_it_and_a_name_where_they_do_not() {
    for (registered, bmc, board, expected) in [
        ("SN1", bmc("SN1", UUID), board("SN1", UUID), "serial = serial"),
        ("SN1", bmc("SN1  ", UUID), board(" SN1 ", SWAPPED), "serial = serial"),
        ("SN1", bmc("SN1", UUID), board("SN1", OTHER), "other UUID"),
        ("SN1", bmc("SN1", ""), board("SN1", OTHER), "serial = serial"),
        ("SN1", bmc("SN1", UUID), board("SN1", ""), "serial = serial"),
        ("SN1", bmc("SN1", UUID), board("SN1", &"0".repeat(32)), "serial = serial"),
        ("SN1", bmc("SN1", ""), board("SN2", ""), "nothing"),
        ("SN1", bmc("SN1", UUID), board("", ""), "nothing"),
        ("SN1", bmc("SN2", UUID), board("SN1", UUID), "not the BMC's"),
        // Boards of a batch with the same UUID are not the same machine.
        ("SN1", bmc("SN1", UUID), board("SN2", UUID), "only UUID"),
        (UUID, bmc("SN1", UUID), board("SN2", UUID), "UUID = UUID"),
        // A placeholder does not contradict another name.
        ("S1234", bmc("S1234", UUID), board("0123456789", SWAPPED), "UUID = UUID"),
        ("S1234", bmc("S1234", UUID), board("0123456789", ""), "nothing"),
        ("0123456789", bmc("0123456789", UUID), board("0123456789", UUID), "nothing"),
        // Neither side has a serial.
        (UUID, bmc("", UUID), board("", SWAPPED), "UUID = UUID"),
        (SWAPPED, bmc("", UUID), board("", UUID), "UUID = UUID"),
        (OTHER, bmc("", UUID), board("", UUID), "not the BMC's"),
        // A BMC without a serial is accepted if the board has the server's name.
        ("SN1", bmc("", UUID), board("SN1", UUID), "nothing = serial"),
        ("SN1", bmc("", UUID), board("SN1", OTHER), "other UUID"),
        ("SN1", bmc("", UUID), board("SN2", UUID), "nothing"),
        ("SN1", Names::default(), board("SN1", UUID), "nothing = serial"),
        (UUID, Names::default(), board("SN1", UUID), "nothing = UUID"),
        ("SN1", Names::default(), board("SN2", UUID), "nothing"),
    ] {
        assert_eq!(
            outcome(registered, &bmc, &board, false),
            expected,
            "{registered}: {bmc} / {board}"
        );
    }
}

#[test]
fn a_uuid_that_is_ignored_neither_refuses_nor_identifies() {
    for (registered, board, expected) in [
        ("SN1", board("SN1", OTHER), "serial = serial"),
        ("SN1", board("SN2", UUID), "nothing"),
        (UUID, board("SN1", UUID), "serial = serial"),
        (UUID, board("", UUID), "nothing"),
    ] {
        assert_eq!(
            outcome(registered, &bmc("SN1", UUID), &board, true),
            expected,
            "{registered}: {board}"
        );
    }
}

#[test]
fn what_several_machines_bear_names_none() {
    let blade = |serial, uuid| BoardFacts {
        manufacturer: "HPE",
        serial,
        sku: "P12345-B21",
        uuid,
        board_serial: "To be filled by O.E.M.",
        chassis_serial: "CH1",
    };
    let (one, two) = (Names::of_board(&blade("B1", "")), Names::of_board(&blade("B2", "")));
    for name in ["CH1", "P12345-B21", "To be filled by O.E.M.", "", " "] {
        assert_eq!(one.find(name), None, "{name:?}");
    }
    assert!(one.find("B1").is_some() && two.find("B1").is_none());
    let told =
        |serial| Names::of_bmc(&BmcFacts { serial, sku: "P12345-B21", ..BmcFacts::default() });
    assert_eq!(outcome("B1", &told("B1"), &one, false), "serial = serial");
    assert_eq!(outcome("B1", &told("B1"), &two, false), "nothing");
    assert_eq!(outcome("P12345-B21", &told("B1"), &one, false), "not the BMC's");
    assert_eq!(outcome("CH1", &told("CH1"), &one, false), "nothing");
    // A text in the form of a product number is not a service tag, whatever its place.
    let odd = ["P12345-B21".to_owned(), "ABCD".into(), "ABCDEFGH".into()];
    let facts = BmcFacts {
        serial: "CN1",
        sku: "P12345-B21",
        sku_is_service_tag: true,
        service_tags: &odd,
        uuid: "",
    };
    let names = Names::of_bmc(&facts);
    assert_eq!(names.iter().map(|name| name.kind).collect::<Vec<_>>(), [Kind::Serial, Kind::Sku]);
}

#[test]
fn only_a_dells_board_serial_has_parts() {
    let parts = |manufacturer| {
        let board_serial = ".ABC1234.CN1EXAMPLE.";
        let names =
            Names::of_board(&BoardFacts { manufacturer, board_serial, ..BoardFacts::default() });
        names.iter().map(|name| name.text.clone()).collect::<Vec<_>>()
    };
    assert_eq!(parts("Dell Inc."), [".ABC1234.CN1EXAMPLE.", "CN1EXAMPLE"]);
    assert_eq!(parts(" DELL"), [".ABC1234.CN1EXAMPLE.", "CN1EXAMPLE"]);
    assert_eq!(parts("Contoso"), [".ABC1234.CN1EXAMPLE."]);
}

#[test]
fn names_are_shown_with_what_does_not_count() {
    let names = Names::of_bmc(&BmcFacts {
        serial: "SN1",
        sku: "P1-B21",
        uuid: "00000000-0000-0000-0000-000000000000",
        ..BmcFacts::default()
    });
    let zeros = "00000000-0000-0000-0000-000000000000";
    assert_eq!(
        names.to_string(),
        format!(
            "serial \"SN1\"; SKU \"P1-B21\", which does not count; UUID \"{zeros}\", which does not count"
        )
    );
    assert_eq!(Names::default().to_string(), "no name");
    assert!(Names::default().is_empty() && !names.is_empty());
    let same = same_machine("SN1", &names, &board("SN1", ""), false).unwrap();
    assert_eq!(same.to_string(), "the BMC's serial \"SN1\" is the board's serial \"SN1\"");
    let nameless = same_machine("SN1", &Names::default(), &board("SN1", ""), false).unwrap();
    assert_eq!(nameless.to_string(), "the server's name is the board's serial \"SN1\"");
}

#[test]
fn a_server_is_registered_by_a_name_that_counts() {
    for (name, can) in [
        ("SN1", true),
        (UUID, true),
        ("", false),
        ("None", false),
        ("03000200-0400-0500-0006-000700080009", false),
        ("00000000-0000-0000-0000-000000000000", false),
    ] {
        assert_eq!(can_register(name), can, "{name:?}");
    }
}

#[test]
fn names_travel_as_they_are() {
    let names = dell_bmc("ABC1234", DELL);
    let json = serde_json::to_value(&names).unwrap();
    assert_eq!(json[0], serde_json::json!({"kind": "board_serial", "text": "CNEXAMPLE00001"}));
    assert_eq!(serde_json::from_value::<Names>(json).unwrap(), names);
}

#[test]
fn each_name_is_told_once_by_its_kind() {
    let tags = ["ABC1234".to_owned(), "ABC1234".to_owned(), "no-tag".to_owned()];
    let facts = BmcFacts { serial: "S1", uuid: DELL, service_tags: &tags, ..BmcFacts::default() };
    // The tag in the UUID is listed already.
    let expected = ["serial \"S1\"", "service tag \"ABC1234\"", &format!("UUID {DELL:?}")];
    assert_eq!(Names::of_bmc(&facts).shown(), expected);
    let facts = BoardFacts { serial: "S1", board_serial: "S1", ..BoardFacts::default() };
    assert_eq!(Names::of_board(&facts).shown(), ["serial \"S1\"", "board serial \"S1\""]);
}
