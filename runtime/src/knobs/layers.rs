//! The layers in which knobs are said, and who wins.
//!
//! Weakest first: the container's own configuration (config.json's `linux.resources`, later changed by runc's
//! flags and by `update --resources`; kept elsewhere in the state) < default class < class < annotations <
//! operator. A layer holds values as they were written, checked when they came in.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::class::{self, Classes};
use super::table::{self, Knob, Value};
use crate::error::{Context, Result};
use crate::invalid;

/// Knob names to values as written.
pub type Layer = BTreeMap<String, String>;

/// A class as it was when it was last read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    pub name: String,
    pub knobs: Layer,
}

/// Everything that was said about a container, by who said it. Goes into the state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Layers {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_class: Option<Class>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    #[serde(skip_serializing_if = "Layer::is_empty")]
    pub annotations: Layer,
    #[serde(skip_serializing_if = "Layer::is_empty")]
    pub operator: Layer,
    /// The class file, where it isn't the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
}

/// Who said a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    DefaultClass(String),
    Class(String),
    Annotation,
    Operator,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::DefaultClass(name) => write!(f, "default class {name}"),
            Source::Class(name) => write!(f, "class {name}"),
            Source::Annotation => f.write_str("annotation"),
            Source::Operator => f.write_str("operator"),
        }
    }
}

/// A value that won.
#[derive(Debug, Clone)]
pub struct Asked {
    pub knob: &'static Knob,
    pub text: String,
    pub value: Value,
    pub from: Source,
}

/// What is asked for in the end, by knob name.
#[derive(Debug, Clone, Default)]
pub struct Effective(pub BTreeMap<String, Asked>);

/// Knobs that say the same thing in two ways: the stronger layer's way wins whole.
const SYNONYMS: [(&str, &str); 5] = [
    ("cpu.weight", "cpu.share"),
    ("cpu.max", "cpu.quota"),
    ("cpu.max", "cpu.period"),
    ("memory.low", "memory.reservation"),
    ("memory.swap", "memory.swap-max"),
];

fn synonyms(name: &str) -> impl Iterator<Item = &'static str> + '_ {
    SYNONYMS.iter().filter_map(move |(a, b)| match () {
        () if *a == name => Some(*b),
        () if *b == name => Some(*a),
        () => None,
    })
}

/// Checks knobs that were said together.
fn check(layer: &Layer) -> Result<()> {
    for (name, text) in layer {
        table::find(name)?.parse(name, text)?;
        if let Some(other) = synonyms(name).find(|other| layer.contains_key(*other)) {
            invalid!("{name}: '{text}' and {other} say the same thing; allowed: one of the two");
        }
    }
    Ok(())
}

impl Layers {
    /// Nothing was said.
    pub fn is_empty(&self) -> bool {
        self.default_class.is_none()
            && self.class.is_none()
            && self.annotations.is_empty()
            && self.operator.is_empty()
    }

    /// The class of the container, for tables.
    pub fn class_name(&self) -> Option<&str> {
        self.class.as_ref().or(self.default_class.as_ref()).map(|c| c.name.as_str())
    }

    /// The layers with their names, weakest first.
    fn ordered(&self) -> impl Iterator<Item = (Source, &Layer)> {
        let default = self.default_class.as_ref().map(|c| (Source::DefaultClass(c.name.clone()), &c.knobs));
        let class = self.class.as_ref().map(|c| (Source::Class(c.name.clone()), &c.knobs));
        let own = [(Source::Annotation, &self.annotations), (Source::Operator, &self.operator)];
        default.into_iter().chain(class).chain(own)
    }

    /// What holds, knob by knob, and who said it.
    pub fn effective(&self) -> Result<Effective> {
        let mut all: BTreeMap<String, Asked> = BTreeMap::new();
        for (from, layer) in self.ordered() {
            for (name, text) in layer {
                let knob = table::find(name)?;
                let value = knob.parse(name, text).with_context(|| from.to_string())?;
                for other in synonyms(name) {
                    if all.get(other).is_some_and(|asked| asked.from < from) {
                        all.remove(other);
                    }
                }
                all.insert(name.clone(), Asked { knob, text: text.clone(), value, from: from.clone() });
            }
        }
        Ok(Effective(all))
    }

    fn config(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(class::CONFIG))
    }

    /// Makes `name` the container's class, or takes the class away.
    pub fn set_class(&mut self, name: Option<&str>) -> Result<()> {
        self.class = match name {
            Some(name) => Some(load(&class::read(self.config())?, name)?),
            None => None,
        };
        Ok(())
    }

    /// Reads the classes anew. A class that is no longer defined keeps what it said, with an error for the
    /// caller to report.
    pub fn reload(&mut self) -> Result<()> {
        if self.class.is_none() && self.default_class.is_none() {
            return Ok(());
        }
        let classes = class::read(self.config())?;
        for class in [&mut self.class, &mut self.default_class].into_iter().flatten() {
            *class = load(&classes, &class.name)?;
        }
        Ok(())
    }

    /// Sets or replaces one `hydra.*` annotation, as `update --annotation` does.
    pub fn annotate(&mut self, key: &str, value: &str) -> Result<()> {
        match key.strip_prefix(PREFIX) {
            Some("class") => self.set_class(Some(value)),
            Some(name) => {
                self.annotations.insert(name.into(), value.into());
                check(&self.annotations)
            }
            None => {
                invalid!("--annotation: '{key}' can't be changed on a running container; allowed: hydra.KNOB")
            }
        }
    }

    /// Sets one of the operator's knobs.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        table::find(name)?.parse(name, value)?;
        for other in synonyms(name) {
            self.operator.remove(other);
        }
        self.operator.insert(name.into(), value.into());
        Ok(())
    }

    /// Takes a knob, or the class, out of the operator's layer again.
    pub fn unset(&mut self, name: &str) -> Result<()> {
        if name == "class" {
            self.class = None;
            return Ok(());
        }
        table::find(name)?;
        if self.operator.remove(name).is_none() {
            let held = self.effective()?.0.remove(name);
            let held =
                held.map_or("nobody set it".into(), |asked| format!("it comes from the {}", asked.from));
            invalid!("--unset: '{name}' is not set by the operator: {held}");
        }
        Ok(())
    }
}

fn load(classes: &Classes, name: &str) -> Result<Class> {
    let knobs = classes.get(name)?;
    check(&knobs).with_context(|| format!("class {name}"))?;
    Ok(Class { name: name.into(), knobs })
}

/// What our annotations begin with.
pub const PREFIX: &str = "hydra.";

/// The knobs among a container's annotations, checked, and the class they name.
pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<(Layer, Option<&str>)> {
    let mut layer = Layer::new();
    let mut class = None;
    // A sorted map has them side by side.
    for (key, value) in annotations.range(PREFIX.to_string()..) {
        match key.strip_prefix(PREFIX) {
            None => break,
            Some("class") => {
                class::check_name(value).context("annotation hydra.class")?;
                class = Some(value.as_str());
            }
            Some(name) => {
                layer.insert(name.into(), value.trim().into());
            }
        }
    }
    check(&layer).context("annotation")?;
    Ok((layer, class))
}

/// Everything said about a container that is to be made.
///
/// `flags` are knob names with values, as the command line gave them; `class` is a name there too. Costs one
/// attempt to open the class file when nothing is said.
pub fn at_create(
    annotations: &BTreeMap<String, String>,
    default_class: Option<&str>,
    flags: &[(String, String)],
    config: Option<&Path>,
) -> Result<Layers> {
    let mut layers = Layers { config: config.map(Path::to_owned), ..Layers::default() };
    let (knobs, mut class) = from_annotations(annotations)?;
    layers.annotations = knobs;
    for (name, value) in flags {
        match name.as_str() {
            "class" => {
                class::check_name(value)?;
                class = Some(value);
            }
            name => {
                layers.operator.insert(name.into(), value.clone());
            }
        }
    }
    check(&layers.operator)?;
    let mut classes = class::read_main(layers.config())?;
    let default = default_class.map(str::to_owned).or(classes.default.take());
    if class.is_some() || default.is_some() {
        class::read_dropins(&mut classes, layers.config())?;
    }
    layers.class = class.map(|name| load(&classes, name)).transpose()?;
    layers.default_class = default.map(|name| load(&classes, &name)).transpose()?;
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(knobs: &[(&str, &str)]) -> Layer {
        knobs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn the_stronger_layer_wins() {
        let mut layers = Layers::default();
        let winner = |layers: &Layers| {
            let asked = layers.effective().unwrap().0.remove("blkio.write-bps").unwrap();
            (asked.text, asked.from)
        };
        layers.default_class = Some(Class { name: "b".into(), knobs: layer(&[("blkio.write-bps", "1")]) });
        assert_eq!(winner(&layers), ("1".into(), Source::DefaultClass("b".into())));
        layers.class = Some(Class { name: "g".into(), knobs: layer(&[("blkio.write-bps", "2")]) });
        assert_eq!(winner(&layers), ("2".into(), Source::Class("g".into())));
        layers.annotate("hydra.blkio.write-bps", "3").unwrap();
        assert_eq!(winner(&layers), ("3".into(), Source::Annotation));
        layers.set("blkio.write-bps", "4").unwrap();
        assert_eq!(winner(&layers), ("4".into(), Source::Operator));
        layers.unset("blkio.write-bps").unwrap();
        assert_eq!(winner(&layers), ("3".into(), Source::Annotation));
        let e = layers.unset("blkio.write-bps").unwrap_err().to_string();
        assert!(e.ends_with("is not set by the operator: it comes from the annotation"), "{e}");
        let json = serde_json::to_string(&layers).unwrap();
        assert_eq!(serde_json::from_str::<Layers>(&json).unwrap(), layers);
    }

    #[test]
    fn two_names_for_one_thing() {
        let mut layers = Layers { annotations: layer(&[("cpu.share", "512")]), ..Layers::default() };
        layers.set("cpu.weight", "50").unwrap();
        let all = layers.effective().unwrap().0;
        assert!(all.contains_key("cpu.weight") && !all.contains_key("cpu.share"));
        let both =
            BTreeMap::from([("hydra.cpu.share".into(), "2".into()), ("hydra.cpu.weight".into(), "2".into())]);
        assert!(from_annotations(&both).unwrap_err().to_string().contains("say the same thing"));
    }

    #[test]
    fn annotations() {
        let all = BTreeMap::from([
            ("a".into(), "1".into()),
            ("hydra.class".into(), "gold".into()),
            ("hydra.blkio.read-iops".into(), "2k".into()),
            ("z".into(), "1".into()),
        ]);
        assert_eq!(from_annotations(&all).unwrap(), (layer(&[("blkio.read-iops", "2k")]), Some("gold")));
        let bad = BTreeMap::from([("hydra.colour".into(), "red".into())]);
        assert!(from_annotations(&bad)
            .unwrap_err()
            .to_string()
            .starts_with("annotation: unknown knob colour"));
    }

    #[test]
    fn classes_from_files() {
        let dir = std::env::temp_dir().join(format!("knobs-test-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("classes.d")).unwrap();
        let config = dir.join("hydra.toml");
        std::fs::write(&config, "default-class = \"silver\"\n[class.silver.cpu]\nweight = 50\n").unwrap();
        std::fs::write(dir.join("classes.d/gold.toml"), "[cpu]\nweight = 500\n").unwrap();
        let annotations = BTreeMap::from([("hydra.class".into(), "gold".into())]);
        let mut layers = at_create(&annotations, None, &[], Some(&config)).unwrap();
        assert_eq!(layers.effective().unwrap().0["cpu.weight"].text, "500");
        assert_eq!(layers.default_class.as_ref().unwrap().name, "silver");
        std::fs::write(dir.join("classes.d/gold.toml"), "[cpu]\nweight = 600\n").unwrap();
        layers.reload().unwrap();
        assert_eq!(layers.effective().unwrap().0["cpu.weight"].text, "600");
        let e = at_create(&BTreeMap::new(), Some("lead"), &[], Some(&config)).unwrap_err().to_string();
        assert_eq!(e, "class: 'lead' is not defined; allowed: gold, silver");
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(at_create(&BTreeMap::new(), None, &[], Some(&config)).unwrap().is_empty());
    }
}
