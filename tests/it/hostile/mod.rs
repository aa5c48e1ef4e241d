//! What anybody may put into the API server, a metrics page or a file: it is refused or read, never a panic.

mod objects;
mod patches;
mod texts;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Texts that have surprised programs before.
const NASTY: [&str; 16] = [
    "",
    " ",
    "a/b~c",
    "~1",
    "~0",
    "\u{0}",
    "ä€😀",
    "9223372036854775807%",
    "99999999999999999999%",
    "-1%",
    "1e999",
    "NaN",
    "2026-13-45T99:99:99Z",
    "-9999-01-01T00:00:00Z",
    "18446744073709551616",
    "{{.}}",
];

/// Any JSON, small, with a taste for what lies at the edges.
pub fn any_json() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec![
            i64::MIN,
            -1,
            0,
            1,
            i64::from(i32::MAX),
            i64::from(i32::MAX) + 1,
            i64::MAX
        ])
        .prop_map(Value::from),
        any::<f64>().prop_map(|n| serde_json::Number::from_f64(n).map_or(Value::Null, Value::Number)),
        prop::sample::select(&NASTY[..]).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec(("[a-z/~.]{0,10}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
    .boxed()
}

/// A change somewhere in an object: which node, what is done, with what.
pub type Change = (usize, u8, Value);

pub fn any_changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec((any::<usize>(), any::<u8>(), any_json()), 0..5)
}

/// The object with the changes.
pub fn changed(object: &Value, changes: &[Change]) -> Value {
    let mut object = object.clone();
    for (node, what, value) in changes {
        let mut paths = Vec::new();
        pointers(&object, String::new(), &mut paths);
        let path = &paths[node % paths.len()];
        let (parent, last) = path.rsplit_once('/').unwrap_or_default();
        let last = last.replace("~1", "/").replace("~0", "~");
        match (what % 4, object.pointer_mut(parent)) {
            (0, Some(Value::Object(fields))) if !path.is_empty() => drop(fields.remove(&last)),
            (1, Some(Value::Object(fields))) => drop(fields.insert("newer".to_owned(), value.clone())),
            _ => {
                if let Some(slot) = object.pointer_mut(path) {
                    *slot = value.clone();
                }
            }
        }
    }
    object
}

fn pointers(value: &Value, path: String, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, below) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(below, format!("{path}/{key}"), into);
            }
        }
        Value::Array(items) => {
            for (index, below) in items.iter().enumerate() {
                pointers(below, format!("{path}/{index}"), into);
            }
        }
        _ => {}
    }
    into.push(path);
}

#[test]
fn changes_change_what_they_name() {
    let object = json!({"a": {"b/c": 1}, "d": [2]});
    let mut paths = Vec::new();
    pointers(&object, String::new(), &mut paths);
    assert_eq!(paths, ["/a/b~1c", "/a", "/d/0", "/d", ""]);
    assert_eq!(changed(&object, &[(0, 0, json!(9))]), json!({"a": {}, "d": [2]}));
    assert_eq!(changed(&object, &[(2, 2, json!(9))]), json!({"a": {"b/c": 1}, "d": [9]}));
    assert_eq!(changed(&object, &[(1, 1, json!(9))]), json!({"a": {"b/c": 1}, "d": [2], "newer": 9}));
}
