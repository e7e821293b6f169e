//! Values of every knob: no panic, refusals of one line, numbers that read back.
#![no_main]

use fuzz::knobs::table::KNOBS;
use fuzz::knobs::value::{self, Unit};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (u8, &str)| {
    let (which, text) = data;
    let knob = &KNOBS[which as usize % KNOBS.len()];
    if let Err(e) = knob.parse(knob.name, text) {
        fuzz::check_refusal(&e);
        assert!(e.to_string().starts_with(knob.name));
    }
    for unit in [Unit::Rate, Unit::PerSecond, Unit::Bytes, Unit::Micros, Unit::Count, Unit::Plain] {
        if let Ok(n) = value::number(text, unit) {
            assert_eq!(value::number(&unit.show(n), unit), Ok(n));
        }
    }
    let _ = value::runc_size(text);
});
