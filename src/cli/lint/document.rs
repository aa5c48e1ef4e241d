//! YAML documents whose every value knows its line and column.

use std::fmt;
use std::ops::Range;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// Where something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// From 1; 0 when it is not known.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters.
    length: usize,
}

impl Place {
    fn new(at: serde_saphyr::Location) -> Self {
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self { line: number(at.line()), column: number(at.column()), length: number(at.span().len()) }
    }

    /// The bytes of `source` that this is, within its first line and at least one.
    pub fn bytes(&self, source: &str) -> Range<usize> {
        let Some(line) = source.split_inclusive('\n').nth(self.line.saturating_sub(1)) else {
            return source.len()..source.len();
        };
        let start = line.as_ptr() as usize - source.as_ptr() as usize;
        let text = line.trim_end();
        let byte = |column: usize| text.char_indices().nth(column).map_or(text.len(), |(i, _)| i);
        let first = byte(self.column.saturating_sub(1));
        let last = byte(self.column.saturating_sub(1).saturating_add(self.length.max(1)));
        start + first..start + last.max(first)
    }
}

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Tree,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Tree {
    /// Anything without parts.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// A map in the order of the file; each key with its place.
    Map(Vec<(String, Place, Node)>),
}

impl Node {
    /// The field of a map.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Tree::Map(fields) => fields.iter().find(|(name, _, _)| name == key).map(|(_, _, node)| node),
            _ => None,
        }
    }

    /// A text at a path of keys.
    pub fn text(&self, path: &[&str]) -> Option<&str> {
        let node = path.iter().try_fold(self, |node, key| node.get(key))?;
        match &node.value {
            Tree::Scalar(value) => value.as_str(),
            _ => None,
        }
    }

    /// The same without places.
    pub fn json(&self) -> Value {
        match &self.value {
            Tree::Scalar(value) => value.clone(),
            Tree::List(items) => Value::Array(items.iter().map(Self::json).collect()),
            Tree::Map(fields) => Value::Object(
                fields.iter().map(|(key, _, node)| (key.clone(), node.json())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// The place of a field such as `spec.steps[0].weight`: of its value, or of its key when the value has
    /// parts. Of a field that is missing: the place of what should contain it.
    pub fn locate(&self, path: &str) -> Place {
        self.find(path, false)
    }

    /// As [`Self::locate`], but always the place of the key.
    pub fn locate_key(&self, path: &str) -> Place {
        self.find(path, true)
    }

    fn find(&self, path: &str, of_key: bool) -> Place {
        let mut node = self;
        let mut place = match &self.value {
            Tree::Map(fields) => fields.first().map_or(self.place, |(_, key, _)| *key),
            _ => self.place,
        };
        let mut rest = path.trim_start_matches('.');
        while !rest.is_empty() {
            if let Some((index, tail)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                let Tree::List(items) = &node.value else { break };
                let Some(item) = index.parse::<usize>().ok().and_then(|i| items.get(i)) else { break };
                node = item;
                place = item.place;
                rest = tail.trim_start_matches('.');
                continue;
            }
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (name, tail) = rest.split_at(end);
            let Tree::Map(fields) = &node.value else { break };
            let Some((_, key, value)) = fields.iter().find(|(known, _, _)| known == name) else { break };
            node = value;
            place = if !of_key && matches!(value.value, Tree::Scalar(_)) { value.place } else { *key };
            rest = tail.trim_start_matches('.');
        }
        place
    }
}

/// All documents of a text, empty ones left out.
pub fn documents(source: &str) -> Result<Vec<Node>, serde_saphyr::Error> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    let all: Vec<Node> = serde_saphyr::from_multiple_with_options(source, options)?;
    Ok(all.into_iter().filter(|node| !matches!(node.value, Tree::Scalar(Value::Null))).collect())
}

/// Line, column and message of a YAML error.
pub fn error_place(error: &serde_saphyr::Error) -> (Place, String) {
    let error = error.without_snippet();
    let text = error.to_string();
    // The place has a field of its own in a finding.
    let message = text.split(" at line ").next().unwrap_or(&text).trim().to_owned();
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    (error.location().map(Place::new).unwrap_or_default(), message)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Tree>::deserialize(deserializer)?;
        Ok(Self { place: Place::new(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            if fields.iter().any(|(known, _, _)| *known == key.value) {
                return Err(de::Error::custom(format!("the field {} is there twice", key.value)));
            }
            fields.push((key.value, Place::new(key.referenced), map.next_value()?));
        }
        Ok(Tree::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            lines in proptest::collection::vec(
                prop_oneof!["[ ]{0,4}[a-z&*!|>-]{0,6}(: ?[a-z0-9'\"{\\[\\]},&*<~-]{0,8})?", ".{0,12}", Just("---".to_owned())],
                0..8,
            ),
            path in "[a-z.\\[\\]0-9-]{0,12}",
        ) {
            let text = lines.join("\n");
            match documents(&text) {
                Ok(all) => for node in all {
                    let place = node.locate(&path);
                    prop_assert!(place.bytes(&text).end <= text.len());
                    drop((node.json(), node.locate_key(&path)));
                },
                Err(error) => prop_assert!(!error_place(&error).1.is_empty()),
            }
        }
    }

    #[test]
    fn every_field_has_its_place() {
        let source = "a: 1\n---\nspec:\n  steps:\n  - {weight: 5}\n  - weight: \u{e4}25 # x\n";
        let all = documents(source).unwrap();
        let place = all[1].locate("spec.steps[1].weight");
        assert_eq!((place.line, place.column), (6, 13));
        assert_eq!(&source[place.bytes(source)], "\u{e4}25");
        let key = all[1].locate("spec.steps");
        assert_eq!((key.line, key.column, &source[key.bytes(source)]), (4, 3, "steps"));
        let missing = all[1].locate("spec.steps[0].nope");
        assert_eq!((missing.line, missing.column), (5, 5));
        assert_eq!(all[1].json()["spec"]["steps"][0]["weight"], 5);
    }

    #[test]
    fn a_broken_file_says_where() {
        let (place, message) = error_place(&documents("a: 1\nb: [1, 2\nc: 3\n").unwrap_err());
        assert!(place.line >= 2, "{place:?} {message}");
        assert!(!message.contains("line"), "{message}");
    }
}
