//! Lists the public API of a crate, one item a line, from what rustdoc writes as JSON.

use std::env;
use std::error::Error;

use public_api::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args().nth(1).ok_or("usage: arshai-public-api target/doc/arshai.json")?;
    let api = Builder::from_rustdoc_json(file)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    api.items().for_each(|item| println!("{item}"));
    Ok(())
}
