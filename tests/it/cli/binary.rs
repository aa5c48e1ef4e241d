//! The real binary, without a cluster: usage, help, lint, completion.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs the program where it finds no cluster and no settings of its user.
pub(super) fn belay(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_belay"))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_clear()
        .env("KUBECONFIG", "tests/it/cli/no-such-kubeconfig")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // Beside the reading: a program that answers while it reads would wait for us, and we for it.
        // One that ends without reading closes the pipe.
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output().unwrap()
    })
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const COMMANDS: &[&str] = &[
    "install",
    "uninstall",
    "doctor",
    "init",
    "lint",
    "release",
    "status",
    "list",
    "history",
    "explain",
    "replay",
    "promote",
    "pause",
    "resume",
    "abort",
    "approve",
    "retry",
    "undo",
    "operator",
    "crds",
    "completion",
    "version",
];

#[test]
fn every_command_has_examples_in_its_help() {
    for command in COMMANDS {
        let output = belay(&[command, "--help"], "");
        assert_eq!(output.status.code(), Some(0), "{command}");
        let help = text(&output.stdout);
        assert!(help.contains("Examples:\n  belay "), "{command}:\n{help}");
    }
    let all = text(&belay(&["--help"], "").stdout);
    for command in COMMANDS {
        assert!(all.contains(&format!("\n  {command} ")), "{command} is not in the help of belay");
    }
}

#[test]
fn the_exit_code_tells_usage_from_failure() {
    let table: &[(&[&str], i32, &str)] = &[
        (&[], 64, "Usage"),
        (&["nonsense"], 64, "unrecognized"),
        (&["lint"], 64, "<FILE>"),
        (&["release"], 64, "<WORKLOAD>"),
        (&["release", "web"], 64, "neither --image nor --env"),
        (&["release", "web", "--image", "a b"], 64, "CONTAINER=IMAGE"),
        (&["release", "web", "--env", "LEVEL"], 64, "KEY=VALUE"),
        (&["release", "web", "--image", "web:2", "--timeout", "soon"], 64, "30s"),
        (&["status", "--request-timeout", "0s"], 64, "longer than 0"),
        (&["status", "--watch", "--wait"], 64, "cannot be used"),
        (&["promote", "--step", "0"], 64, "1..=22"),
        (&["list", "-o", "xml"], 64, "text"),
        (&["-q", "-v", "list"], 64, "cannot be used"),
        (&["completion", "basic"], 64, "bash"),
        (&["init", "web", "--force"], 64, "--write"),
        (&["init", "web", "--strategy", "red"], 64, "blue-green"),
        (&["undo", "--to-revision", "0"], 64, "0"),
        (&["list"], 1, "failed to find out which cluster"),
        (&["list", "--kubeconfig", "no-such-file"], 1, "--kubeconfig"),
        (&["lint", "no-such-file.yaml"], 1, "failed to read no-such-file.yaml"),
    ];
    for (args, code, words) in table {
        let output = belay(args, "");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}: an error belongs on standard error");
    }
}

#[test]
fn a_failure_says_what_was_tried_why_and_what_next() {
    let said = text(&belay(&["status"], "").stderr);
    for part in ["error: failed to ", "\n  why: ", "\n  next: "] {
        assert!(said.contains(part), "{said}");
    }
    let output = belay(&["status", "-o", "json"], "");
    let json: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (&json["schemaVersion"], &json["kind"], &json["error"]["code"]),
        (&"v1".into(), &"Error".into(), &1.into())
    );
}

#[test]
fn a_value_of_env_is_not_in_an_error() {
    let said = text(&belay(&["release", "web", "--env", " =hunter2", "--env", "A=b"], "").stderr);
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn every_shell_gets_a_completion() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = belay(&["completion", shell], "");
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("promote"), "{shell}");
    }
}

#[test]
fn definitions_and_manifests_are_printed_without_a_cluster() {
    let crds = text(&belay(&["crds"], "").stdout);
    assert_eq!(crds.matches("kind: CustomResourceDefinition").count(), 4, "{crds}");
    let manifests = belay(&["install", "--dry-run", "--image", "mirror/belay:9"], "");
    assert!(text(&manifests.stdout).contains("mirror/belay:9"));
    let version = text(&belay(&["version", "--client", "-o", "json"], "").stdout);
    assert!(version.contains(env!("CARGO_PKG_VERSION")) && version.contains("\"schemaVersion\": \"v1\""));
}

#[test]
fn as_a_plugin_it_is_called_kubectl_belay() {
    let folder = std::env::temp_dir().join(format!("belay-plugin-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let plugin = folder.join("kubectl-belay");
    // Not a copy: a process that another test starts meanwhile would hold it open for writing, and it could not run.
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_belay"), &plugin).unwrap();
    let help = Command::new(&plugin).args(["promote", "--help"]).output().unwrap();
    let failed = Command::new(&plugin).args(["list", "--kubeconfig", "no-such-file"]).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let help = text(&help.stdout);
    assert!(
        help.contains("Usage: kubectl belay promote") && help.contains("\n  kubectl belay promote web"),
        "{help}"
    );
    assert_eq!(failed.status.code(), Some(1));
}

const GOOD: &str = "\
apiVersion: belay.dev/v1alpha1
kind: Rollout
metadata: {name: web, namespace: shop}
spec:
  workloadRef: {kind: Deployment, name: web}
  strategy:
    canary:
      steps:
      - {weight: 10, minDuration: 2m}
      - {weight: 50, minDuration: 5m}
  analysis:
    metrics: {pods: {port: 8080}}
    guards:
    - name: errors
      ratio:
        bad: {metric: http_requests_total, match: 'code=~\"5..\"'}
        total: {metric: http_requests_total}
        tolerate: 1.2x + 0.1%
";

#[test]
fn a_good_file_has_nothing_to_say() {
    let output = belay(&["lint", "--replicas", "20", "-"], GOOD);
    assert_eq!(text(&output.stdout), "1 Rollout in 1 file: nothing to say\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn notes_are_no_errors() {
    let small = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {replicas: 3}\n---\n";
    let source = format!("{small}{}", GOOD.replace("minDuration: 2m", "minDuration: 30s"));
    let output = belay(&["lint", "-"], &source);
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!("lint_notes", text(&output.stdout));
    let bare = "apiVersion: belay.dev/v1alpha1\nkind: Rollout\nmetadata: {name: web}\nspec:\n  workloadRef: {kind: Deployment, name: web}\n";
    let output = belay(&["lint", "-"], bare);
    assert!(text(&output.stdout).contains("advances by time only"));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn errors_have_line_column_and_caret() {
    let bad = GOOD
        .replace("minDuration: 2m", "minDuratoin: 2m")
        .replace("weight: 50", "weight: 80")
        .replace("code=~\"5..\"", "code=~5..")
        .replace("1.2x + 0.1%", "0.5x");
    let output = belay(&["lint", "-"], &format!("{bad}---\n{GOOD}"));
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("lint_errors", text(&output.stdout));
    let json = belay(&["lint", "-o", "json", "-"], &bad);
    assert_eq!(json.status.code(), Some(1));
    insta::assert_snapshot!("lint_errors_json", text(&json.stdout));
    let broken = belay(&["lint", "-"], "a: [1, 2\nb: 3\n");
    assert_eq!(broken.status.code(), Some(1));
    insta::assert_snapshot!("lint_not_yaml", text(&broken.stdout));
}
