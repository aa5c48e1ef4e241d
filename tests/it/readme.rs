//! The README says what is so: its blocks, commands, links and named tests are checked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use belay::cli::args::Cli;
use clap::{CommandFactory, Parser};

/// Programs of others that a reader is asked to run.
const FOREIGN: [&str; 2] = ["kubectl", "skopeo"];
/// Commands that need no cluster: they are run.
const OFFLINE: [&str; 4] =
    ["belay crds", "belay completion", "belay version --client", "belay install --dry-run"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

/// The fenced blocks with one of these tags.
fn blocks(tags: &[&str]) -> Vec<String> {
    let text = readme();
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(tag), None) => open = Some((tags.contains(&tag), String::new())),
            (Some(_), Some(_)) => {
                found.extend(open.take().and_then(|(wanted, block)| wanted.then_some(block)));
            }
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// What stands between backquotes outside of blocks.
fn quoted() -> Vec<String> {
    let text = readme();
    let prose: String = text.split("\n```").step_by(2).collect();
    let pieces: Vec<&str> = prose.split('`').collect();
    assert_eq!(pieces.len() % 2, 1, "a backquote is missing");
    pieces
        .into_iter()
        .skip(1)
        .step_by(2)
        .map(|s| s.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Single commands of the shell blocks: continued lines joined, comments, redirections and `$ ` taken away.
fn commands() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for block in blocks(&["sh", "console"]) {
        for line in block.replace("\\\n", " ").lines() {
            let line = line.strip_prefix("$ ").unwrap_or(line);
            let line = line.split(" #").next().unwrap_or_default();
            for part in line.split(['|', '&', ';']).filter(|p| !p.trim().is_empty()) {
                let part = part.split('>').next().unwrap_or_default();
                found.push(words(part));
            }
        }
    }
    found
}

/// The words of a command, with single and double quotes.
fn words(command: &str) -> Vec<String> {
    let (mut found, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => found.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote is not closed: {command}");
    found.extend(word);
    found
}

fn belay(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_belay"))
        .args(args)
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A whole command line is understood, and each of its flags is in the help of its command.
fn assert_understood(line: &[String]) {
    let parsed = Cli::try_parse_from(line);
    assert!(parsed.is_ok(), "{line:?}: {}", parsed.unwrap_err());
    let help = belay(&[&line[1], "--help"]);
    assert!(help.status.success(), "{line:?}");
    assert_flags(&line[1], line);
}

/// The flags among the words are in the help of the command.
fn assert_flags(command: &str, words: &[String]) {
    let help = String::from_utf8(belay(&[command, "--help"]).stdout).unwrap();
    let known: BTreeSet<&str> = help
        .split(|c: char| c.is_whitespace() || c == ',' || c == '.')
        .filter(|w| w.starts_with('-'))
        .collect();
    for flag in words.iter().filter(|w| w.starts_with('-')) {
        let flag = flag.split('=').next().unwrap();
        assert!(known.contains(flag), "{words:?}: {flag} is not in the help of {command}");
    }
}

#[test]
fn yaml_lints_clean() {
    let blocks = blocks(&["yaml"]);
    assert!(blocks.len() >= 2);
    for (i, block) in blocks.iter().enumerate() {
        let file = std::env::temp_dir().join(format!("belay-readme-{}-{i}.yaml", std::process::id()));
        std::fs::write(&file, block).unwrap();
        let lint = belay(&["lint", file.to_str().unwrap()]);
        std::fs::remove_file(&file).unwrap();
        let said = String::from_utf8_lossy(&lint.stdout);
        assert!(lint.status.success() && said.contains("1 Rollout in 1 file"), "{block}\n{said}");
    }
}

#[test]
fn commands_in_blocks_are_understood() {
    let commands = commands();
    assert!(commands.len() > 5, "{commands:?}");
    for line in commands {
        match line[0].as_str() {
            "belay" => assert_understood(&line),
            "kubectl" if line[1] == "belay" => assert_understood(&line[1..]),
            "make" => line[1..].iter().for_each(|target| assert_target(target)),
            program => assert!(FOREIGN.contains(&program), "unknown program: {line:?}"),
        }
    }
}

#[test]
fn commands_in_the_text_exist() {
    let names: BTreeSet<String> = Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
    let mut told = BTreeSet::new();
    for quoted in quoted() {
        let words = words(&quoted);
        match words.first().map(String::as_str) {
            Some("make") => assert_target(&words[1]),
            Some("belay") if words[1..].first().is_some_and(|w| w != "COMMAND") => {
                assert!(names.contains(&words[1]), "`{quoted}` is not a command");
                assert_flags(&words[1], &words);
                told.insert(words[1].clone());
            }
            Some(flag) if flag.starts_with("--") => {
                let flag = flag.split('=').next().unwrap();
                let help: String =
                    names.iter().map(|n| String::from_utf8(belay(&[n, "--help"]).stdout).unwrap()).collect();
                assert!(help.contains(flag), "`{quoted}` is a flag of no command");
            }
            _ => {}
        }
    }
    assert_eq!(told, names, "each command has a place in the README");
}

#[test]
fn what_needs_no_cluster_runs() {
    let lines: Vec<String> = commands().iter().map(|l| l.join(" ")).chain(quoted()).collect();
    let mut ran = 0;
    for line in lines.iter().filter(|l| OFFLINE.iter().any(|o| l.starts_with(o))) {
        let mut args = words(line)[1..].to_vec();
        if args == ["completion"] {
            args.push("bash".to_owned());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let done = belay(&args);
        assert!(
            done.status.success() && !done.stdout.is_empty(),
            "{line}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        ran += 1;
    }
    assert!(ran >= 3, "{lines:?}");
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let help = String::from_utf8(belay(&["--help"]).stdout).unwrap();
    let text = readme();
    let (_, table) = text.split_once("| exit code | meaning |").unwrap();
    let rows = table.lines().skip(2).take_while(|l| l.starts_with('|'));
    let codes: Vec<&str> = rows.map(|row| row.split('|').nth(1).unwrap().trim()).collect();
    let told = help
        .split_once("Exit codes:")
        .unwrap()
        .1
        .split("\n\n")
        .next()
        .unwrap()
        .split("\nEach")
        .next()
        .unwrap();
    let numbers: Vec<&str> = told.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty()).collect();
    assert_eq!(codes, numbers);
}

fn assert_target(target: &str) {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    assert!(makefile.lines().any(|l| l.starts_with(&format!("{target}:"))), "make {target} does not exist");
}

#[test]
fn links_and_files_exist() {
    let text = readme();
    let mut links = 0;
    for link in text.split("](").skip(1).map(|l| l.split(')').next().unwrap()) {
        if !link.contains("://") && !link.starts_with('#') {
            assert!(root().join(link).exists(), "the README links to {link}");
            links += 1;
        }
    }
    assert!(links > 8);
    for file in std::fs::read_dir(root().join("examples")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(text.contains(&format!("examples/{name}")), "the README does not mention examples/{name}");
    }
}

/// The Rust files under a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    sources(&root().join("tests"), &mut files);
    let code: Vec<(PathBuf, String)> =
        files.into_iter().map(|f| (f.clone(), std::fs::read_to_string(f).unwrap())).collect();
    let text = readme();
    let (_, table) = text.split_once("| guarantee | tests |").unwrap();
    let rows: Vec<&str> = table.lines().skip(2).take_while(|l| l.starts_with('|')).collect();
    assert!(rows.len() >= 10);
    for row in rows {
        let tests: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test holds: {row}");
        for test in tests {
            let (module, name) = test.rsplit_once("::").unwrap_or(("", test));
            let file =
                if module.is_empty() { String::new() } else { format!("{}.rs", module.replace("::", "/")) };
            let holds = code
                .iter()
                .any(|(path, source)| path.to_str().unwrap().ends_with(&file) && is_test(source, name));
            assert!(holds, "the test {test} does not exist");
        }
    }
}

/// Whether a source has a test of this name: the attribute stands right before it.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(i, line)| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.starts_with(&format!("fn {name}("))
            && i > 0
            && lines[i - 1].starts_with("#[")
            && lines[i - 1].contains("test")
    })
}

#[test]
fn the_recording_has_its_place() {
    let text = readme();
    let (start, end) =
        (text.find("<!-- recording:start -->").unwrap(), text.find("<!-- recording:end -->").unwrap());
    assert!(start < end);
}
