//! The rules of the stamp, in CEL and in Rust, side by side.
//!
//! Purpose: the one place that says whose name a command of a Release bears: that of the user who wrote it,
//! whatever the write claims. Nobody is exempt. The admission policy is built from the CEL; [`patch`] is the
//! same rules as a function, for the webhook on servers without the policy.
//! May touch: JSON. Must never: do I/O.
//!
//! On creation all commands are new; later, the schema lets one be added at a time and none be changed.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use serde_json::Value;

use super::brake::Expression;

/// The most commands that a Release takes; the same number as in its schema.
const MAX_COMMANDS: u32 = 50;

/// When the stamp looks at a write at all.
pub fn conditions() -> Vec<Expression> {
    vec![Expression {
        name: "has-commands",
        cel: "has(object.spec.commands)".to_owned(),
        meaning: "there are commands",
    }]
}

const BEFORE: &str =
    "oldObject == null || !has(oldObject.spec.commands) ? 0 : oldObject.spec.commands.size()";

/// When the API server calls the webhook: [`conditions`], and the write adds a command that does not bear the name of
/// its user. All other writes of a Release do not need Belay to run.
pub fn calls() -> Vec<Expression> {
    let commands = "object.spec.commands";
    let mut all = conditions();
    all.push(Expression {
        name: "needed",
        cel: format!(
            "[{}].exists(i, i >= ({BEFORE}) && i < {commands}.size() && \
             (!has({commands}[i].by) || {commands}[i].by != request.userInfo.username))\n|| {}",
            indices(),
            super::probe::asked_cel()
        ),
        meaning: "the write adds a command in another name, or the stamp is to show that it is there",
    });
    all
}

/// The places of all commands that there can be: CEL counts over lists only.
fn indices() -> String {
    let indices: Vec<String> = (0..MAX_COMMANDS).map(|i| i.to_string()).collect();
    indices.join(",")
}

/// What the stamp knows about a write.
pub fn variables() -> Vec<Expression> {
    vec![Expression { name: "before", cel: BEFORE.to_owned(), meaning: "how many commands there were" }]
}

/// What the stamp does: an array of JSON Patch operations.
pub fn patch_cel() -> String {
    format!(
        "[{}].filter(i, i >= variables.before && i < object.spec.commands.size())\
         .map(i, JSONPatch{{op: \"add\", path: \"/spec/commands/\" + string(i) + \"/by\", \
         value: request.userInfo.username}})",
        indices()
    )
}

/// What the stamp makes of a write of a Release by `user`: the operations to do on `new`. There is no `old` on
/// creation.
///
/// The same rules as [`conditions`], [`variables`] and [`patch_cel`].
pub fn patch(user: &str, old: Option<&Value>, new: &Value) -> Patch {
    let count = |release: &Value| release["spec"]["commands"].as_array().map_or(0, Vec::len);
    let before = old.map_or(0, count);
    let stamp = |index: usize| {
        let path = PointerBuf::from_tokens(["spec", "commands", &index.to_string(), "by"]);
        PatchOperation::Add(AddOperation { path, value: user.into() })
    };
    Patch((before..count(new).min(MAX_COMMANDS as usize)).map(stamp).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after(old: Option<&Value>, new: &Value) -> Value {
        let mut result = new.clone();
        json_patch::patch(&mut result, &patch("alice", old, new)).unwrap();
        result["spec"]["commands"].clone()
    }

    #[test]
    fn all_commands_of_a_new_release_are_stamped() {
        let new = json!({"spec": {"commands": [{"verb": "pause"}, {"verb": "resume", "by": "bob"}]}});
        let stamped = json!([{"verb": "pause", "by": "alice"}, {"verb": "resume", "by": "alice"}]);
        assert_eq!(after(None, &new), stamped);
    }

    #[test]
    fn earlier_commands_keep_their_author() {
        let old = json!({"spec": {"commands": [{"verb": "pause", "by": "bob"}]}});
        let new =
            json!({"spec": {"commands": [{"verb": "pause", "by": "bob"}, {"verb": "abort", "by": "bob"}]}});
        assert_eq!(after(Some(&old), &new)[0]["by"], "bob");
        assert_eq!(after(Some(&old), &new)[1]["by"], "alice");
    }

    #[test]
    fn a_release_without_commands_and_a_fewer_one_are_left_to_the_schema() {
        let some = json!({"spec": {"commands": [{"verb": "pause", "by": "bob"}]}});
        assert!(patch("alice", Some(&some), &json!({"spec": {}})).0.is_empty());
        assert!(patch("alice", None, &json!({"spec": {"commands": "x"}})).0.is_empty());
    }
}
