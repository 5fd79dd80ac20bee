// SPDX-License-Identifier: AGPL-3.0-or-later
//! The published document is the built one, and what it shows is true of its own schemas.
//! `SHOAL_GOLDEN=write cargo test -p api` writes `openapi.json` anew: read the diff.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Value, json};

use super::{DOCUMENT, document};

#[expect(clippy::disallowed_methods, reason = "it writes the document when asked to")]
#[test]
fn the_published_document_is_fresh() {
    let built = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    if std::env::var_os("SHOAL_GOLDEN").is_some_and(|word| word == "write") {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json"), built).unwrap();
        return;
    }
    assert!(built == DOCUMENT, "run SHOAL_GOLDEN=write cargo test -p api, and read the diff");
}

/// Every object in the document, with its place.
fn objects(value: &Value, place: &str, visit: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Object(members) => {
            visit(place, value);
            for (key, member) in members {
                objects(member, &format!("{place}/{}", key.replace('/', "~1")), visit);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                objects(item, &format!("{place}/{index}"), visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_example_fits_its_schema() {
    let document = document();
    let mut cases = 0;
    objects(&document, "", &mut |place, object| {
        let (Some(schema), Some(example)) = (object.get("schema"), object.get("example")) else {
            return;
        };
        cases += 1;
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": document["components"],
            "allOf": [schema]
        });
        let validator = jsonschema::validator_for(&schema).unwrap();
        let problems: Vec<_> = validator.iter_errors(example).map(|e| e.to_string()).collect();
        assert!(problems.is_empty(), "{place}: {problems:#?}");
    });
    assert!(cases >= 40, "{cases} cases");
}

#[test]
fn the_recipe_in_the_example_is_one() {
    let recipe = super::jobs::recipe_example();
    recipe::Recipe::parse(&serde_json::to_vec(&recipe).unwrap()).unwrap();
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let document = document();
    let mut used = HashSet::new();
    objects(&document, "", &mut |place, object| {
        let Some(reference) = object.get("$ref").and_then(Value::as_str) else { return };
        let pointer = reference.strip_prefix('#').expect("references stay in the document");
        assert!(document.pointer(pointer).is_some(), "{place}: {reference}");
        used.insert(pointer.to_owned());
    });
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(used.contains(&format!("/components/schemas/{name}")), "{name} is used by nobody");
    }
}

#[test]
fn operations_are_told_apart_and_name_the_parameters_of_their_path() {
    let document = document();
    let mut ids = HashSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let in_path: HashSet<_> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        for (method, operation) in operations.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} twice");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let named: HashSet<_> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            assert_eq!(named, in_path, "{method} {path}");
        }
    }
}

#[test]
fn every_kind_of_event_is_named() {
    let document = document();
    let kind = &document["components"]["schemas"]["JobEvent"]["properties"]["kind"];
    let text = kind["description"].as_str().unwrap();
    for kind in crate::jobs::EVENT_KINDS {
        assert!(text.contains(&format!("`{kind}`")), "{kind} is not in: {text}");
    }
}
