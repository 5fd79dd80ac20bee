// SPDX-License-Identifier: AGPL-3.0-or-later
//! Recipes: what is valid stays so on its way to the machine, and comes back as the same recipe.
#![no_main]

use recipe::Recipe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(recipe) = Recipe::parse(bytes) else { return };
    let again = Recipe::parse(&recipe.to_json()).expect("a valid recipe stays valid");
    assert_eq!(again.to_json(), recipe.to_json());
});
