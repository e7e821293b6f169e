//! Annotations: what is taken has an effect that can be told.
#![no_main]

use std::collections::BTreeMap;

use fuzz::knobs::layers::{from_annotations, Layers};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|pairs: Vec<(bool, &str, &str)>| {
    let name = |ours: bool, key: &str| if ours { format!("hydra.{key}") } else { key.to_string() };
    let all: BTreeMap<String, String> =
        pairs.into_iter().map(|(ours, key, value)| (name(ours, key), value.to_string())).collect();
    match from_annotations(&all) {
        Err(e) => fuzz::check_refusal(&e),
        Ok((annotations, _)) => {
            let layers = Layers { annotations, ..Layers::default() };
            let count = layers.annotations.len();
            assert_eq!(layers.effective().expect("was checked").0.len(), count);
        }
    }
});
