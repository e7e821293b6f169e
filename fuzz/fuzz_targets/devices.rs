//! Lists of devices with rates: what is read and written again reads the same.
#![no_main]

use fuzz::knobs::value::{self, Amount, Unit};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(list) = value::devices(text, Unit::Rate) else { return };
    let show = |amount: &Amount| amount.number().map_or("max".to_string(), |n| Unit::Rate.show(n));
    let again: Vec<String> = list.iter().map(|(selector, amount)| format!("{selector}={}", show(amount))).collect();
    assert_eq!(value::devices(&again.join(","), Unit::Rate), Ok(list));
});
