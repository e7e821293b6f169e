//! The JSON of `update --resources`.
#![no_main]

use fuzz::knobs::base;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match base::from_json(text) {
        Err(e) => fuzz::check_refusal(&e),
        Ok(given) => {
            let mut resources = cgroup::Resources::default();
            base::merge(&mut resources, given.resources.clone());
            let once = resources.clone();
            base::merge(&mut resources, given.resources);
            assert_eq!(resources, once, "the same change again changes nothing");
        }
    }
});
