//! Class files.
#![no_main]

use fuzz::knobs::class;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match class::parse_main(text) {
        Err(e) => fuzz::check_refusal(&e),
        Ok(all) => {
            for name in all.classes.keys() {
                if let Err(e) = all.get(name) {
                    fuzz::check_refusal(&e);
                }
            }
        }
    }
    if let Err(e) = class::parse_class(text) {
        fuzz::check_refusal(&e);
    }
});
