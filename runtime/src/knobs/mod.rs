//! Knobs: limits said by annotation, class, flag or JSON in one vocabulary, and the layers they come in.

pub mod applied;
pub mod base;
pub mod class;
pub mod devices;
pub mod helper;
pub mod hierarchies;
pub mod inspect;
pub mod layers;
pub mod limits;
pub mod stats;
pub mod table;
pub mod update;
pub mod value;

pub use applied::{attach_links, said, Applied, Saved};

use crate::error::Result;
use crate::invalid;

/// A flag of `create`, `run` and `update`.
#[derive(Debug)]
pub struct Flag {
    /// Without the dashes: `blkio-write-bps`.
    pub name: String,
    /// How its value is written.
    pub value: String,
    pub help: &'static str,
}

/// The flags of all knobs, for help texts; `--cgroup-file FILE=VALUE` comes on top. runc's flags of the same
/// name have precedence.
pub fn flags() -> impl Iterator<Item = Flag> {
    let knobs = table::KNOBS.iter().map(|k| Flag { name: k.flag(), value: k.value_text(), help: k.about });
    let class = Flag { name: "class".into(), value: "NAME".into(), help: "the container's class" };
    knobs.chain([class])
}

/// Whether a knob has this flag (without the dashes).
pub fn is_flag(name: &str) -> bool {
    name == "cgroup-file" || name == "class" || knob_of(name).is_some()
}

fn knob_of(flag: &str) -> Option<&'static table::Knob> {
    let same = |k: &&table::Knob| {
        k.name.len() == flag.len()
            && k.name.bytes().map(|b| if b == b'.' { b'-' } else { b }).eq(flag.bytes())
    };
    table::KNOBS.iter().find(same)
}

/// A flag and its value as a knob and its value.
pub fn from_flag(flag: &str, value: &str) -> Result<(String, String)> {
    match (flag, value.split_once('=')) {
        ("class", _) => Ok(("class".into(), value.into())),
        ("cgroup-file", Some((file, value))) => Ok((format!("{}{file}", table::RAW), value.into())),
        ("cgroup-file", None) => invalid!("--cgroup-file: '{value}' is not FILE=VALUE"),
        _ => match knob_of(flag) {
            Some(knob) => Ok((knob.name.into(), value.into())),
            None => invalid!("--{flag} is not the flag of a knob"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_knobs() {
        for flag in flags().filter(|f| !matches!(f.name.as_str(), "class" | "cgroup-file")) {
            let (knob, _) = from_flag(&flag.name, "1").unwrap();
            assert_eq!(table::find(&knob).unwrap().flag(), flag.name);
        }
        assert!(is_flag("blkio-write-bps") && !is_flag("blkio.write-bps") && !is_flag("memory"));
        let raw = from_flag("cgroup-file", "memory.high=a=b").unwrap();
        assert_eq!(raw, ("cgroup.memory.high".into(), "a=b".into()));
    }

    /// The table of docs/knobs.md.
    fn table_text() -> String {
        let mut text = String::from(
            "| knob | value | range | cgroup v1 | cgroup v2 | |\n| --- | --- | --- | --- | --- | --- |\n",
        );
        for k in table::KNOBS.iter().chain([&table::RAW_KNOB]) {
            let file = |f: &str| if f.is_empty() { "-".to_string() } else { format!("`{f}`") };
            let runc = if k.runc_flag { " Flag as runc's." } else { "" };
            let lacking = format!("{}. Lacking: {}.", k.about, k.lacking);
            text += &format!(
                "| `{}` | {} | {} | {} | {} | {lacking}{runc} |\n",
                k.name,
                k.value_text(),
                k.range_text(),
                file(k.v1),
                file(k.v2)
            );
        }
        text
    }

    #[test]
    fn docs_have_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/knobs.md");
        let docs = std::fs::read_to_string(path).unwrap();
        let (before, rest) = docs.split_once("docs_have_the_table` -->\n").unwrap();
        let (_, after) = rest.split_once("<!-- end -->").unwrap();
        let wanted = format!("{before}docs_have_the_table` -->\n{}<!-- end -->{after}", table_text());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        assert!(
            docs == wanted || std::env::var_os("UPDATE_DOCS").is_some(),
            "docs/knobs.md: run with UPDATE_DOCS=1"
        );
    }

    #[test]
    fn the_examples_are_good() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/hydra.toml");
        let classes = class::read(std::path::Path::new(path)).unwrap();
        assert_eq!(classes.classes.keys().collect::<Vec<_>>(), ["batch", "bronze", "gold", "silver"]);
        classes.classes.keys().for_each(|name| drop(classes.get(name).unwrap()));
        assert_eq!(classes.default.as_deref(), Some("bronze"));
    }
}
