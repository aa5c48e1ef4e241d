//! `replay --looks`: streams of counts, judged by the code that judges releases.
//!
//! Memory is bounded by the number of streams, not by that of lines: a file is read line by line, and once more before
//! that when the length of its streams has to be known.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::csv::{Csv, CsvError, Row};
use super::example;
use crate::analysis::{Judge, Tolerance};
use crate::api::evidence::{Counts, GuardState, Look};
use crate::cli::args::{Format, Replay};
use crate::cli::failure::{Exit, Failure, Kind};
use crate::cli::session::Session;
use crate::report::streams::{LookLine, StreamReport, StreamsReport};

const TOLERATE: &str = "1.2x + 0.1%";
/// Streams that one file may have.
const MOST_STREAMS: usize = 10_000;
/// Output is written in pieces of about this many bytes.
const PIECE: usize = 256 * 1024;

/// Judges the streams of a file.
pub fn run(session: &Session, args: &Replay, file: &Path) -> Result<Exit, Failure> {
    let written = args.tolerate.as_deref().unwrap_or(TOLERATE);
    let tolerance: Tolerance = written.parse().map_err(|error: crate::analysis::ToleranceError| {
        Failure::new(Kind::Usage, "failed to read the tolerance").because(error.caret()).hint(example(&error))
    })?;
    let planned = match args.planned_looks {
        Some(planned) => planned,
        None => longest(file, args.raw)?,
    };
    let judge = Judge::new(tolerance, args.confidence.map(Into::into).unwrap_or_default(), planned);
    let mut printed = Printed { session, lines: session.global.output == Format::Jsonl, bytes: Vec::new() };
    let mut streams = Streams::default();
    let mut states: Vec<(GuardState, StreamReport)> = Vec::new();
    let mut look = Look::of(0.0, Counts::default());
    let done = each(
        file,
        args.raw,
        |row, csv_index| {
            if csv_index == states.len() {
                states.push((GuardState::default(), StreamReport::new(row.stream, &judge)));
            }
            let Some((state, report)) = states.get_mut(csv_index) else { return Ok(()) };
            (look.dispersion, look.spread) = (row.dispersion, row.spread);
            look.counts.clear();
            look.counts.push(row.counts);
            let judged = judge.take(state, &look);
            report.take(row.look, &row.counts, &judged);
            printed.line(&LookLine::new(row.stream, row.look, &judged))
        },
        &mut streams,
    );
    // What was said of the lines before a bad one stands; nothing comes after the error.
    printed.flush()?;
    done?;
    if !printed.lines {
        session.print(&StreamsReport {
            tolerate: tolerance.to_string(),
            planned_looks: judge.planned_looks(),
            streams: states.into_iter().map(|(_, report)| report).collect(),
        })?;
    }
    Ok(Exit::OK)
}

/// Lines of JSON on their way to standard output.
struct Printed<'a> {
    session: &'a Session,
    lines: bool,
    bytes: Vec<u8>,
}

impl Printed<'_> {
    fn line(&mut self, line: &LookLine<'_>) -> Result<(), Failure> {
        if !self.lines {
            return Ok(());
        }
        serde_json::to_writer(&mut self.bytes, line).map_err(crate::report::RenderError::Json)?;
        self.bytes.push(b'\n');
        if self.bytes.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if !self.bytes.is_empty() {
            self.session.out(&String::from_utf8_lossy(&self.bytes))?;
            self.bytes.clear();
        }
        Ok(())
    }
}

/// The streams so far, and the last look of each.
#[derive(Debug, Default)]
struct Streams {
    numbers: BTreeMap<String, usize>,
    last: Vec<(u64, u32)>,
}

impl Streams {
    /// The number of the row's stream, from 0 in the order of their first rows.
    fn number(&mut self, row: &Row<'_>) -> Result<usize, (bool, String, &'static str)> {
        if let Some(number) = self.numbers.get(row.stream).copied() {
            let Some((last, looks)) = self.last.get_mut(number) else { return Ok(number) };
            if row.look <= *last {
                let problem =
                    format!("look {} of stream {:?} comes after its look {last}", row.look, row.stream);
                return Err((
                    true,
                    problem,
                    "sort the lines of each stream by look, and number each look once",
                ));
            }
            (*last, *looks) = (row.look, looks.saturating_add(1));
            return Ok(number);
        }
        let number = self.last.len();
        if number == MOST_STREAMS {
            let problem = format!("there are more than {MOST_STREAMS} streams");
            return Err((false, problem, "split the file"));
        }
        self.numbers.insert(row.stream.to_owned(), number);
        self.last.push((row.look, 1));
        Ok(number)
    }
}

/// Looks of the longest stream.
fn longest(file: &Path, raw: bool) -> Result<u32, Failure> {
    let regular = file != Path::new("-") && std::fs::metadata(file).is_ok_and(|found| found.is_file());
    if !regular && (file == Path::new("-") || file.exists()) {
        return Err(Failure::new(Kind::Usage, "failed to find out how many looks are planned")
            .because(format!(
                "{} can be read only once, and the default is the length of the longest stream",
                said(file)
            ))
            .hint("say how many with --planned-looks"));
    }
    let mut streams = Streams::default();
    each(file, raw, |_, _| Ok(()), &mut streams)?;
    Ok(streams.last.iter().map(|(_, looks)| *looks).max().unwrap_or_default())
}

fn said(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

/// Reads a file from its beginning.
fn each(
    file: &Path,
    raw: bool,
    take: impl FnMut(&Row<'_>, usize) -> Result<(), Failure>,
    streams: &mut Streams,
) -> Result<(), Failure> {
    if file == Path::new("-") {
        return rows(std::io::stdin().lock(), file, raw, take, streams);
    }
    let tried = || format!("failed to read {}", file.display());
    let opened = File::open(file).map_err(|error| Failure::io(tried(), &error))?;
    rows(BufReader::with_capacity(PIECE, opened), file, raw, take, streams)
}

fn rows(
    input: impl BufRead,
    file: &Path,
    raw: bool,
    mut take: impl FnMut(&Row<'_>, usize) -> Result<(), Failure>,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let refused = |error: &CsvError| {
        let failure = Failure::new(Kind::Failed, format!("failed to read {}", said(file)))
            .because(crate::cli::failure::chain(error));
        match error {
            CsvError::Line { cure, .. } => failure.hint(cure.clone()),
            CsvError::Io { .. } => failure,
        }
    };
    let mut csv = Csv::open(input, raw).map_err(|error| refused(&error))?;
    loop {
        let found = match csv.next().map_err(|error| refused(&error))? {
            None => return Ok(()),
            Some(row) => match streams.number(&row) {
                Ok(number) => take(&row, number).map(|()| None)?,
                Err(wrong) => Some(wrong),
            },
        };
        if let Some((look, problem, cure)) = found {
            return Err(refused(&csv.refuse_row(look, problem, cure)));
        }
    }
}
