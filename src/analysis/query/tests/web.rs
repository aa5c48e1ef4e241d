//! Checks of addresses: what is asked, what passes, and everything that is no answer.

use serde_json::{Value, json};

use super::*;
use crate::analysis::check::Names;
use crate::analysis::query::check;
use crate::analysis::tests::plan_of;

fn names() -> Names {
    let [revision, namespace, rollout, release] = ["7f3", "shop", "web", "web-7f3"].map(str::to_owned);
    Names { revision, namespace, rollout, release }
}

/// Runs a check of this address with these fields.
async fn run(url: &str, more: &Value) -> (Result<bool, String>, String) {
    let mut web = json!({"url": url});
    json_patch::merge(&mut web, more);
    let plan = plan_of(&json!([{"name": "smoke", "web": web}]));
    let run = check(&Http::new(), &Nothing, &plan, "smoke", &names(), at(0)).await;
    assert_eq!((run.guard.as_str(), run.at), ("smoke", at(0)));
    (run.passed, run.seen)
}

fn says(status: u16, body: &str) -> String {
    let body = body.as_bytes().to_vec();
    format!("http://127.0.0.1:{}/", serve(move |_, _| Reply::Say(status, body.clone())))
}

#[tokio::test]
async fn the_answer_is_held_against_the_condition() {
    let body = r#"{"ready": true, "checks": {"database": "ok"}, "items": [{"n": 1}, {"n": 2}]}"#;
    let url = says(200, body);
    for (more, passed, seen) in [
        (json!({}), true, "status 200"),
        (json!({"condition": "status == 204"}), false, "status 200"),
        (json!({"condition": "result.ready && size(result.items) == 2"}), true, "status 200"),
        (
            json!({"jsonPath": "$.checks.database", "condition": "result == 'ok'"}),
            true,
            r#"status 200, result "ok""#,
        ),
        (
            json!({"jsonPath": "$.items[*].n", "condition": "result.all(n, n > 1)"}),
            false,
            "status 200, result [1,2]",
        ),
        (
            json!({"jsonPath": "$.items[?@.n > 1]", "condition": "size(result) == 1"}),
            true,
            r#"status 200, result [{"n":2}]"#,
        ),
    ] {
        assert_eq!(run(&url, &more).await, (Ok(passed), seen.to_owned()), "{more}");
    }
    let unwell = says(503, "<html>");
    assert_eq!(run(&unwell, &json!({})).await, (Ok(false), "status 503".to_owned()));
}

#[tokio::test]
async fn what_is_no_answer_neither_passes_nor_fails() {
    let flood = format!("http://127.0.0.1:{}/", serve(|_, _| Reply::Flood(3 << 20)));
    let hang = format!("http://127.0.0.1:{}/", serve(|_, _| Reply::Hang));
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let large = json!((0..3000).collect::<Vec<_>>()).to_string();
    let bearer = json!({"bearer": {"secretRef": {"name": "token"}}});
    for (url, more, said) in [
        (&flood, json!({}), "is larger than 1048576 bytes"),
        (&hang, json!({"timeout": "200ms"}), "did not answer within 0.2 s"),
        (&gone, json!({}), "failed to reach"),
        (
            &says(200, "<html>"),
            json!({"condition": "result.ok"}),
            "answered 200, and the condition cannot be evaluated",
        ),
        (&says(200, "<html>"), json!({"condition": "result.ok"}), "the answer is no JSON"),
        (&says(200, "{}"), json!({"condition": "result.ok"}), "there is no ok"),
        (&says(401, "{}"), json!({"condition": "result.ok"}), "it wants credentials; set auth"),
        (
            &says(200, "{}"),
            json!({"jsonPath": "$.ok", "condition": "result"}),
            "the answer has nothing at $.ok",
        ),
        (&says(200, &large), json!({"condition": "size(result) == 1"}), "more than 2000 values"),
        (&says(200, "{}"), json!({"auth": bearer}), "there is no Secret token in namespace shop"),
    ] {
        let (passed, seen) = run(url, &more).await;
        let reason = passed.unwrap_err();
        assert!(reason.contains(said) && seen.is_empty(), "{said}: {reason}");
    }
}

#[tokio::test]
async fn placeholders_method_and_headers_are_sent() {
    let asked = Arc::new(Mutex::new(String::new()));
    let heard = asked.clone();
    let port = serve(move |_, request| {
        request.clone_into(&mut heard.lock().unwrap());
        Reply::Say(200, Vec::new())
    });
    let url = format!(
        "http://127.0.0.1:{port}/{{{{namespace}}}}/{{{{ rollout }}}}/{{{{release}}}}?r={{{{revision}}}}"
    );
    let more = json!({"method": "POST", "headers": [{"name": "X-Team", "value": "shop"}]});
    assert_eq!(run(&url, &more).await.0, Ok(true));
    let request = asked.lock().unwrap().clone();
    assert!(request.starts_with("POST /shop/web/web-7f3?r=7f3 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("x-team: shop\r\n"), "{request}");
}
