//! From an analysis that names templates to one that has all its guards written out.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Number, Value};

use super::check::PLACEHOLDERS;
use crate::api::analysis::Analysis;
use crate::api::guard::Guard;
use crate::api::template::{Argument, ArgumentType, Template, TemplateKind, TemplateRef};

/// Characters that a text may have after its arguments are filled in.
const LONGEST: usize = 2048;

/// A template as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownTemplate {
    /// Where it is.
    pub kind: TemplateKind,
    /// Its name.
    pub name: String,
    /// Its `metadata.generation`.
    pub generation: i64,
    /// What it says; or why it cannot be read.
    pub spec: Result<Template, String>,
}

/// Why the templates of an analysis cannot be used.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("spec.analysis.templates[{name}]: {problem}")]
pub struct TemplateError {
    /// The template's name.
    pub name: String,
    /// What is wrong and what to do.
    pub problem: String,
}

/// The same analysis with the guards of its templates after its own, and with each template's generation noted.
pub fn with_templates(analysis: &Analysis, known: &[KnownTemplate]) -> Result<Analysis, TemplateError> {
    let mut resolved = analysis.clone();
    for (index, reference) in analysis.templates.iter().enumerate() {
        let fail = |problem: String| TemplateError { name: reference.name.clone(), problem };
        let kind = reference.kind.unwrap_or_default();
        let template = known
            .iter()
            .find(|known| known.kind == kind && known.name == reference.name)
            .ok_or_else(|| fail(format!("there is no such {kind}; create it or correct the name")))?;
        let spec = template.spec.as_ref().map_err(|why| fail(format!("the {kind} cannot be read: {why}")))?;
        resolved.guards.extend(guards(spec, reference).map_err(fail)?);
        resolved.templates[index].generation = Some(template.generation);
    }
    Ok(resolved)
}

fn guards(template: &Template, reference: &TemplateRef) -> Result<Vec<Guard>, String> {
    let values = values(&template.args, &reference.args)?;
    let read = |(index, guard): (usize, &Value)| {
        let filled = filled(guard, &values, &format!("guards[{index}]"))?;
        Guard::deserialize(&filled).map_err(|error| format!("guards[{index}]: {error}"))
    };
    template.guards.iter().enumerate().map(read).collect()
}

/// The value of each argument: what the Rollout gives, or the default.
fn values(args: &[Argument], given: &BTreeMap<String, String>) -> Result<BTreeMap<String, Value>, String> {
    if let Some(unknown) = given.keys().find(|name| !args.iter().any(|arg| arg.name == **name)) {
        let known: Vec<&str> = args.iter().map(|arg| arg.name.as_str()).collect();
        return Err(format!("args.{unknown}: the template has no such argument, only {}", known.join(", ")));
    }
    let value = |arg: &Argument| {
        let text = given.get(&arg.name).or(arg.default.as_ref()).ok_or_else(|| {
            format!("args.{}: the template has no default for it; give it a value", arg.name)
        })?;
        let typed = typed(arg.kind.unwrap_or_default(), text);
        let typed = typed.map_err(|wanted| format!("args.{}: {text:?} is not {wanted}", arg.name))?;
        Ok((arg.name.clone(), typed))
    };
    args.iter().map(value).collect()
}

fn typed(kind: ArgumentType, text: &str) -> Result<Value, &'static str> {
    match kind {
        ArgumentType::String => Ok(text.into()),
        ArgumentType::Integer => text.parse::<i64>().map(Value::from).map_err(|_| "a whole number"),
        ArgumentType::Number => {
            text.parse().ok().and_then(Number::from_f64).map(Value::Number).ok_or("a number")
        }
        ArgumentType::Boolean => text.parse::<bool>().map(Value::from).map_err(|_| "true or false"),
    }
}

/// `value` with its arguments filled in; `at` is where it stands, for messages.
fn filled(value: &Value, values: &BTreeMap<String, Value>, at: &str) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => text_filled(text, values, at)?,
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| filled(item, values, &format!("{at}[{index}]")))
            .collect::<Result<_, _>>()?,
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| Ok((key.clone(), filled(value, values, &format!("{at}.{key}"))?)))
            .collect::<Result<_, String>>()?,
        other => other.clone(),
    })
}

fn text_filled(text: &str, values: &BTreeMap<String, Value>, at: &str) -> Result<Value, String> {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after
            .split_once("}}")
            .ok_or_else(|| format!("{at}: an argument is not closed with }}}}, in {text:?}"))?;
        if PLACEHOLDERS.contains(&name.trim()) {
            // A check fills it in when it asks.
            for part in [before, "{{", name.trim(), "}}"] {
                whole.push_str(part);
            }
            rest = after;
            continue;
        }
        let value = name.trim().strip_prefix("args.").and_then(|name| values.get(name));
        let value = value.ok_or_else(|| {
            let known: Vec<String> = values.keys().map(|name| format!("args.{name}")).collect();
            format!("{at}: {:?} is no argument; there are {}", name.trim(), known.join(", "))
        })?;
        if before.is_empty() && after.is_empty() && whole.is_empty() {
            return Ok(value.clone());
        }
        whole.push_str(before);
        match value {
            Value::String(text) => whole.push_str(text),
            other => whole.push_str(&other.to_string()),
        }
        rest = after;
    }
    whole.push_str(rest);
    if whole.len() > LONGEST {
        return Err(format!("{at}: longer than {LONGEST} characters with its arguments"));
    }
    Ok(whole.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(spec: Value) -> KnownTemplate {
        KnownTemplate {
            kind: TemplateKind::AnalysisTemplate,
            name: "http".to_owned(),
            generation: 7,
            spec: serde_json::from_value(spec).map_err(|error: serde_json::Error| error.to_string()),
        }
    }

    fn errors() -> KnownTemplate {
        let bad = json!({"metric": "http_requests_total", "match": r#"job="{{args.job}}",code=~"5..""#});
        let total = json!({"metric": "http_requests_total", "match": r#"job="{{ args.job }}""#});
        template(json!({
            "args": [
                {"name": "job"}, {"name": "tolerate", "default": "1.2x + 0.1%"},
                {"name": "weight", "type": "integer", "default": "2"},
            ],
            "guards": [{
                "name": "errors", "weight": "{{args.weight}}",
                "ratio": {"bad": bad, "total": total, "tolerate": "{{args.tolerate}}"},
            }],
        }))
    }

    fn analysis(args: &Value) -> Analysis {
        let own = json!({"name": "own", "gauge": {"metric": "rss", "tolerate": "1.2x"}});
        serde_json::from_value(json!({
            "metrics": {"pods": {"port": 80}}, "guards": [own], "templates": [{"name": "http", "args": args}],
        }))
        .unwrap()
    }

    fn refused(args: &Value, known: &[KnownTemplate]) -> String {
        with_templates(&analysis(args), known).unwrap_err().to_string()
    }

    #[test]
    fn guards_come_with_their_arguments_filled_in() {
        let resolved = with_templates(&analysis(&json!({"job": "web"})), &[errors()]).unwrap();
        assert_eq!(resolved.guards.len(), 2, "after its own");
        let guard = &resolved.guards[1];
        let ratio = guard.ratio.as_ref().unwrap();
        assert_eq!(guard.weight, Some(2), "a text of nothing but an argument takes its type");
        assert_eq!(ratio.bad.as_ref().unwrap().matches.as_deref(), Some(r#"job="web",code=~"5..""#));
        assert_eq!(ratio.total.as_ref().unwrap().matches.as_deref(), Some(r#"job="web""#));
        assert_eq!(ratio.tolerate.as_deref(), Some("1.2x + 0.1%"));
        assert_eq!(resolved.templates[0].generation, Some(7));
        let loose = with_templates(&analysis(&json!({"job": "web", "tolerate": "3x"})), &[errors()]).unwrap();
        assert_eq!(loose.guards[1].ratio.as_ref().unwrap().tolerate.as_deref(), Some("3x"));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let at = "spec.analysis.templates[http]: ";
        let said = |args: Value| refused(&args, &[errors()]);
        assert_eq!(
            refused(&json!({}), &[]),
            format!("{at}there is no such AnalysisTemplate; create it or correct the name")
        );
        assert_eq!(
            said(json!({})),
            format!("{at}args.job: the template has no default for it; give it a value")
        );
        assert_eq!(
            said(json!({"jop": "web"})),
            format!("{at}args.jop: the template has no such argument, only job, tolerate, weight")
        );
        assert_eq!(
            said(json!({"job": "web", "weight": "many"})),
            format!("{at}args.weight: \"many\" is not a whole number")
        );
        let broken = |guard: Value| refused(&json!({}), &[template(json!({"guards": [guard]}))]);
        assert!(broken(json!({"name": "a", "ratoi": {}})).contains("guards[0]: unknown field `ratoi`"));
        assert_eq!(
            broken(json!({"name": "{{args.nobody}}"})),
            format!("{at}guards[0].name: \"args.nobody\" is no argument; there are ")
        );
        assert!(broken(json!({"name": "{{args.nobody"})).contains("is not closed with }}"));
        assert!(broken(json!({"name": "a".repeat(3000)})).contains("longer than 2048 characters"));
        let unread = refused(&json!({}), &[template(json!({"guards": 5}))]);
        assert!(unread.contains("the AnalysisTemplate cannot be read: invalid type"), "{unread}");
    }

    #[test]
    fn a_value_is_not_filled_in_again() {
        let twice = with_templates(&analysis(&json!({"job": "{{args.tolerate}}"})), &[errors()]).unwrap();
        let matches = twice.guards[1].ratio.as_ref().unwrap().total.as_ref().unwrap().matches.clone();
        assert_eq!(matches.as_deref(), Some(r#"job="{{args.tolerate}}""#));
    }
}
