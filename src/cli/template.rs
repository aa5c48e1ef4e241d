//! Changes of a pod template as a JSON Patch with tests; pure.
//!
//! The Deployment is raw JSON, and only the fields that change are named: fields of a newer API survive.

use serde_json::{Value, json};

use super::failure::{Failure, Kind};

/// A change of a Deployment's pod template.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The JSON Patch; empty when nothing changes.
    pub patch: Vec<Value>,
    /// The pod template before.
    pub before: Value,
    /// The pod template after.
    pub after: Value,
}

/// An image for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageArg {
    container: Option<String>,
    image: String,
}

/// A variable for a container; no value removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvArg {
    container: Option<String>,
    key: String,
    value: Option<String>,
}

/// Reads `[CONTAINER=]IMAGE`.
pub fn image_arg(text: &str) -> Result<ImageArg, Failure> {
    let (container, image) = match text.split_once('=') {
        Some((container, image)) => (Some(container), image),
        None => (None, text),
    };
    if image.is_empty() || container.is_some_and(str::is_empty) || image.contains(char::is_whitespace) {
        return Err(Failure::new(Kind::Usage, format!("failed to read --image {text:?}"))
            .because("it is not CONTAINER=IMAGE, or IMAGE alone")
            .hint("write it as --image web=registry.example/web:1.2"));
    }
    Ok(ImageArg { container: container.map(ToOwned::to_owned), image: image.to_owned() })
}

/// Reads `[CONTAINER:]KEY=VALUE`, or `[CONTAINER:]KEY-` to remove. The value is never part of a message.
pub fn env_arg(text: &str) -> Result<EnvArg, Failure> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text.strip_suffix('-').unwrap_or(""), None),
    };
    let (container, key) = match name.split_once(':') {
        Some((container, key)) => (Some(container), key),
        None => (None, name),
    };
    if key.is_empty() || key.contains(char::is_whitespace) || container.is_some_and(str::is_empty) {
        let shown = text.split_once('=').map_or(text, |(name, _)| name);
        return Err(Failure::new(Kind::Usage, format!("failed to read --env {shown:?}"))
            .because("it is neither KEY=VALUE nor KEY-")
            .hint("write it as --env LOG_LEVEL=debug, or --env LOG_LEVEL- to remove the variable"));
    }
    Ok(EnvArg { container: container.map(ToOwned::to_owned), key: key.to_owned(), value })
}

/// The change that gives the containers of `deployment` these images and variables.
pub fn change(deployment: &Value, images: &[ImageArg], env: &[EnvArg]) -> Result<Change, Failure> {
    let before = deployment.pointer("/spec/template").cloned().unwrap_or_default();
    let mut ops = Vec::new();
    for arg in images {
        let place = container(&before, arg.container.as_deref(), "--image")?;
        let old = before.pointer(&format!("{}/image", place.path));
        if old.and_then(Value::as_str) != Some(arg.image.as_str()) {
            place.guard(&mut ops);
            ops.push(json!({"op": "add", "path": place.at("image"), "value": arg.image}));
        }
    }
    let mut after = apply(&before, &ops)?;
    for arg in env {
        let place = container(&after, arg.container.as_deref(), "--env")?;
        let list = after.pointer(&format!("{}/env", place.path)).and_then(Value::as_array);
        let known = list.and_then(|list| list.iter().position(|item| item["name"] == arg.key.as_str()));
        let entry = arg.value.as_ref().map(|value| json!({"name": arg.key, "value": value}));
        let mut now = Vec::new();
        match (list, known, entry) {
            (Some(list), Some(i), Some(entry)) if list[i] != entry => {
                now.push(json!({"op": "test", "path": place.at(&format!("env/{i}/name")), "value": arg.key}));
                now.push(json!({"op": "replace", "path": place.at(&format!("env/{i}")), "value": entry}));
            }
            (Some(_), None, Some(entry)) => {
                now.push(json!({"op": "add", "path": place.at("env/-"), "value": entry}));
            }
            (None, _, Some(entry)) => {
                now.push(json!({"op": "add", "path": place.at("env"), "value": [entry]}));
            }
            (_, Some(i), None) => {
                now.push(json!({"op": "test", "path": place.at(&format!("env/{i}/name")), "value": arg.key}));
                now.push(json!({"op": "remove", "path": place.at(&format!("env/{i}"))}));
            }
            _ => {}
        }
        if !now.is_empty() {
            place.guard(&mut ops);
            after = apply(&after, &now)?;
            ops.extend(now);
        }
    }
    Ok(Change { patch: bound(deployment, ops), before, after })
}

/// The change that gives `deployment` this whole template.
pub fn replace(deployment: &Value, template: &Value) -> Change {
    let before = deployment.pointer("/spec/template").cloned().unwrap_or_default();
    if before == *template {
        return Change { patch: Vec::new(), before: before.clone(), after: before };
    }
    let ops = vec![
        json!({"op": "test", "path": "/spec/template", "value": before}),
        json!({"op": "replace", "path": "/spec/template", "value": template}),
    ];
    Change { patch: bound(deployment, ops), before, after: template.clone() }
}

/// The pod template of a ReplicaSet as its Deployment had it.
pub fn of_replica_set(replica_set: &Value) -> Option<Value> {
    let mut template = replica_set.pointer("/spec/template")?.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(crate::api::POD_TEMPLATE_HASH);
    }
    Some(template)
}

/// Binds the patch to this very object: another Deployment of the same name is not meant.
fn bound(deployment: &Value, ops: Vec<Value>) -> Vec<Value> {
    if ops.is_empty() {
        return ops;
    }
    let mut patch =
        vec![json!({"op": "test", "path": "/metadata/uid", "value": deployment["metadata"]["uid"]})];
    patch.extend(ops);
    patch
}

fn apply(template: &Value, ops: &[Value]) -> Result<Value, Failure> {
    let tried = "failed to work out the change";
    let mut object = json!({"spec": {"template": template}});
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(ops.to_vec()))
        .map_err(|error| Failure::new(Kind::Failed, tried).because(error.to_string()))?;
    json_patch::patch(&mut object, &patch)
        .map_err(|error| Failure::new(Kind::Failed, tried).because(error.to_string()))?;
    Ok(object["spec"]["template"].take())
}

/// A container in the template, as a path from the template.
struct Place {
    path: String,
    name: Value,
}

impl Place {
    fn at(&self, rest: &str) -> String {
        format!("/spec/template{}/{rest}", self.path)
    }

    /// The list may have changed meanwhile: the patch holds only for the container of this name.
    fn guard(&self, ops: &mut Vec<Value>) {
        let test = json!({"op": "test", "path": self.at("name"), "value": self.name});
        if !ops.contains(&test) {
            ops.push(test);
        }
    }
}

fn container(template: &Value, name: Option<&str>, flag: &str) -> Result<Place, Failure> {
    let mut found = Vec::new();
    for list in ["containers", "initContainers"] {
        for (i, item) in template["spec"][list].as_array().into_iter().flatten().enumerate() {
            found.push((list, Place { path: format!("/spec/{list}/{i}"), name: item["name"].clone() }));
        }
    }
    let names: Vec<String> =
        found.iter().filter_map(|(_, place)| place.name.as_str().map(ToOwned::to_owned)).collect();
    let Some(name) = name else {
        let mut plain = found.into_iter().filter(|(list, _)| *list == "containers").map(|(_, place)| place);
        return match (plain.next(), plain.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(Failure::new(Kind::Usage, format!("failed to find out which container {flag} means"))
                .because(format!("there is more than one: {}", names.join(", ")))
                .hint(format!(
                    "name it: {}",
                    if flag == "--env" { "--env CONTAINER:KEY=VALUE" } else { "--image CONTAINER=IMAGE" }
                ))),
        };
    };
    found.into_iter().map(|(_, place)| place).find(|place| place.name == name).ok_or_else(|| {
        Failure::new(Kind::NotFound, format!("failed to find the container {name}"))
            .because(format!("the workload has {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Value {
        json!({"metadata": {"uid": "u1"}, "spec": {"template": {"spec": {
            "containers": [{"name": "web", "image": "web:1", "env": [{"name": "A", "value": "1"}]}, {"name": "side", "image": "s:1"}],
            "initContainers": [{"name": "setup", "image": "i:1"}]}}}})
    }

    fn run(images: &[&str], env: &[&str]) -> Result<Change, Failure> {
        let images: Vec<_> = images.iter().map(|text| image_arg(text)).collect::<Result<_, _>>()?;
        let env: Vec<_> = env.iter().map(|text| env_arg(text)).collect::<Result<_, _>>()?;
        change(&deployment(), &images, &env)
    }

    #[test]
    fn a_change_names_only_what_changes_and_tests_whom_it_means() {
        let change = run(&["web=web:2", "setup=i:2"], &["web:A=2", "web:B=x", "side:C=y"]).unwrap();
        let mut object = deployment();
        let patch: json_patch::Patch = serde_json::from_value(Value::Array(change.patch.clone())).unwrap();
        json_patch::patch(&mut object, &patch).unwrap();
        assert_eq!(object["spec"]["template"], change.after);
        assert_eq!(change.patch[0], json!({"op": "test", "path": "/metadata/uid", "value": "u1"}));
        assert_eq!(change.after["spec"]["containers"][0]["env"][1], json!({"name": "B", "value": "x"}));
        assert_eq!(change.after["spec"]["initContainers"][0]["image"], "i:2");
        assert_eq!(run(&[], &["web:A-"]).unwrap().after["spec"]["containers"][0]["env"], json!([]));
    }

    #[test]
    fn what_is_so_already_is_no_change() {
        assert!(run(&["web=web:1"], &["web:A=1", "web:Z-"]).unwrap().patch.is_empty());
    }

    #[test]
    fn an_unclear_container_is_asked_for() {
        assert_eq!(run(&["web:2"], &[]).unwrap_err().kind, Kind::Usage);
        assert_eq!(
            run(&["nope=web:2"], &[]).unwrap_err().why.as_deref(),
            Some("the workload has web, side, setup")
        );
        let failure = run(&[], &[" =hunter2"]).unwrap_err();
        assert!(!format!("{failure:?}").contains("hunter2"));
    }
}
