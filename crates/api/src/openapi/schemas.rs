// SPDX-License-Identifier: AGPL-3.0-or-later
//! `components/schemas`: the types of this crate by schemars, and the recipe from its own file.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use crate::{access, artifacts, jobs, node, problem, servers};

/// Every schema that an operation refers to, and what those refer to, by name.
pub fn schemas() -> Map<String, Value> {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut add = [
        name::<jobs::NewJob>,
        name::<jobs::Job>,
        name::<jobs::Plan>,
        name::<jobs::JobList>,
        name::<jobs::JobEvents>,
        name::<jobs::StatusWebhook>,
        name::<servers::ServerSpec>,
        name::<servers::Server>,
        name::<servers::ServerList>,
        name::<servers::PowerAction>,
        name::<servers::BootAction>,
        name::<servers::ServerState>,
        name::<servers::FirmwareList>,
        name::<servers::NewFirmwareUpdate>,
        name::<servers::FirmwareUpdate>,
        name::<servers::Probe>,
        name::<artifacts::ArtifactList>,
        name::<artifacts::Collected>,
        name::<artifacts::UploadList>,
        name::<artifacts::Scrubbed>,
        name::<artifacts::Imported>,
        name::<access::NewAccessToken>,
        name::<access::CreatedAccessToken>,
        name::<access::AccessTokenList>,
        name::<access::AuditPage>,
        name::<node::Hello>,
        name::<node::PermitRequest>,
        name::<node::Permit>,
        name::<node::Progress>,
        name::<node::Log>,
        name::<node::Result>,
        name::<problem::Problem>,
    ];
    for name in &mut add {
        name(&mut generator);
    }
    let mut schemas = generator.take_definitions(true);
    schemas.extend(recipe());
    schemas.sort_keys();
    schemas
}

/// Makes the generator know `T`.
fn name<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// In place of a recipe inside another type: the type has it as plain JSON, which is parsed by `recipe`.
pub fn recipe_reference(_generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"$ref": "#/components/schemas/Recipe"})
}

/// The recipe's schema. It is draft-07 with no keyword that draft 2020-12 reads otherwise; only its
/// definitions move to where a document has them, as readers of OpenAPI seldom follow an inner `$id`.
fn recipe() -> Map<String, Value> {
    let text = recipe::SCHEMA;
    let mut schema: Value = serde_json::from_str(text).expect("recipe.schema.json is JSON");
    move_references(&mut schema);
    let root = schema.as_object_mut().expect("recipe.schema.json is an object");
    root.shift_remove("$schema");
    root.shift_remove("$id");
    let definitions = root.shift_remove("definitions");
    let mut schemas = Map::new();
    if let Some(Value::Object(definitions)) = definitions {
        for (name, definition) in definitions {
            schemas.insert(recipe_name(&name), definition);
        }
    }
    schemas.insert("Recipe".into(), schema);
    schemas
}

fn move_references(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match member.as_str().and_then(|text| text.strip_prefix("#/definitions/")) {
                    Some(name) if key == "$ref" => {
                        *member = format!("#/components/schemas/{}", recipe_name(name)).into();
                    }
                    _ => move_references(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(move_references),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `network` in the recipe's file is `RecipeNetwork` here.
fn recipe_name(definition: &str) -> String {
    let (first, rest) = definition.split_at(1);
    format!("Recipe{}{rest}", first.to_uppercase())
}
