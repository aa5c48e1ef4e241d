//! Looks of streams as comma-separated values, line by line.
//!
//! Nothing is kept but the present line. Every refusal names the line, the column, and what to do.

use std::io::{BufRead, Read};

use crate::api::evidence::Counts;

/// The columns that must be there, in the order of [`Row`], and those that may.
const NEEDED: [&str; 6] = ["stream", "look", "c", "nc", "s", "ns"];
const OPTIONAL: [&str; 2] = ["dispersion", "spread"];
/// Bytes that a line may have.
const LONGEST: u64 = 64 * 1024;
/// Characters that a stream's name may have.
const LONGEST_NAME: usize = 256;
/// Beyond this a counter is not believed in a release, either.
const MOST: f64 = 1e18;

/// Why a line cannot be used.
#[derive(thiserror::Error, Debug)]
pub enum CsvError {
    /// The file itself cannot be read.
    #[error("reading stopped at line {line}")]
    Io {
        /// The line, from 1.
        line: usize,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line that is not as it must be.
    #[error("line {line}, column {column}: {problem}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// The character at which the field begins, from 1.
        column: usize,
        /// What is wrong.
        problem: String,
        /// What to do.
        cure: String,
    },
}

/// One look of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    /// The stream's name.
    pub stream: &'a str,
    /// The number of the look.
    pub look: u64,
    /// What happened since the look before.
    pub counts: Counts,
    /// What its evidence is divided by; at least 1.
    pub dispersion: f64,
    /// What its limits are widened by; at least 1.
    pub spread: f64,
}

/// A field and where it begins, in characters from 1.
#[derive(Clone, Debug, Default)]
struct Field {
    text: String,
    column: usize,
}

/// Reads looks.
#[derive(Debug)]
pub struct Csv<R> {
    input: R,
    line: usize,
    bytes: Vec<u8>,
    fields: Vec<Field>,
    used: usize,
    /// Which field each of [`NEEDED`] and [`OPTIONAL`] is.
    places: [Option<usize>; 8],
    width: usize,
}

impl<R: BufRead> Csv<R> {
    /// Reads the header. With `raw` the optional columns are passed over.
    pub fn open(input: R, raw: bool) -> Result<Self, CsvError> {
        let mut csv = Self {
            input,
            line: 0,
            bytes: Vec::new(),
            fields: Vec::new(),
            used: 0,
            places: [None; 8],
            width: 0,
        };
        let header = "begin the file with the header stream,look,c,nc,s,ns";
        if !csv.read_line()? {
            return Err(csv.refuse(1, "there is no header".to_owned(), header));
        }
        let known = || NEEDED.iter().chain(&OPTIONAL);
        for index in 0..csv.used {
            let field = csv.fields[index].clone();
            let name = field.text.trim();
            let Some(place) = known().position(|column| *column == name) else {
                let problem = format!("there is no column {name:?}");
                return Err(csv.refuse(
                    field.column,
                    problem,
                    "name the columns stream, look, c, nc, s, ns, and optionally dispersion and spread; remove others",
                ));
            };
            if csv.places[place].replace(index).is_some() {
                return Err(csv.refuse(
                    field.column,
                    format!("the column {name} is there twice"),
                    "remove one",
                ));
            }
        }
        if let Some(missing) = NEEDED.iter().zip(&csv.places).find(|(_, place)| place.is_none()) {
            return Err(csv.refuse(1, format!("the column {} is missing", missing.0), header));
        }
        if raw {
            csv.places[6] = None;
            csv.places[7] = None;
        }
        csv.width = csv.used;
        Ok(csv)
    }

    /// The next look, or nothing at the end. Empty lines are passed over.
    pub fn next(&mut self) -> Result<Option<Row<'_>>, CsvError> {
        if !self.read_line()? {
            return Ok(None);
        }
        if self.used != self.width {
            let column = self.fields[..self.used].last().map_or(1, |field| field.column);
            let problem = format!("{} fields, where the header has {}", self.used, self.width);
            return Err(self.refuse(
                column,
                problem,
                "give each column one field; a name with a comma needs quotes",
            ));
        }
        let look = self.look()?;
        let counts = Counts {
            canary_bad: self.number(2, 0.0)?,
            canary_total: self.number(3, 0.0)?,
            stable_bad: self.number(4, 0.0)?,
            stable_total: self.number(5, 0.0)?,
        };
        let (dispersion, spread) = (self.number(6, 1.0)?, self.number(7, 1.0)?);
        Ok(Some(Row { stream: self.stream()?, look, counts, dispersion, spread }))
    }

    /// A refusal of the present line at a column, counted in characters.
    fn refuse(&self, column: usize, problem: String, cure: &str) -> CsvError {
        CsvError::Line { line: self.line, column, problem, cure: cure.to_owned() }
    }

    /// A refusal of the present line's stream or look, for what only the reader of the streams knows.
    pub fn refuse_row(&self, look: bool, problem: String, cure: &str) -> CsvError {
        self.refuse(self.field(usize::from(look)).map_or(1, |field| field.column), problem, cure)
    }

    fn field(&self, place: usize) -> Option<&Field> {
        self.places[place].and_then(|index| self.fields.get(index))
    }

    fn stream(&self) -> Result<&str, CsvError> {
        let field = self.field(0).ok_or_else(|| self.refuse(1, "no stream".to_owned(), "name it"))?;
        let name = field.text.as_str();
        if name.is_empty() || name.chars().any(char::is_control) || name.chars().count() > LONGEST_NAME {
            let problem = format!(
                "the stream's name is empty, longer than {LONGEST_NAME} characters, or not printable"
            );
            return Err(self.refuse(field.column, problem, "name each stream, as web-1"));
        }
        Ok(name)
    }

    fn look(&self) -> Result<u64, CsvError> {
        let field = self.field(1).ok_or_else(|| self.refuse(1, "no look".to_owned(), "number it"))?;
        let text = field.text.trim();
        // u64 alone would take a plus sign, too.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or_else(|| {
            let problem = format!("look: {text:?} is not a whole number");
            self.refuse(field.column, problem, "number the looks of a stream 1, 2, 3 and so on")
        })
    }

    /// A real number of at least `least`, which is also what an absent or, where that is 1, an empty field means.
    fn number(&self, place: usize, least: f64) -> Result<f64, CsvError> {
        let Some(field) = self.field(place) else { return Ok(least) };
        let text = field.text.trim();
        if text.is_empty() && least > 0.0 {
            return Ok(least);
        }
        let number = text.parse::<f64>().ok().filter(|number| (least..=MOST).contains(number));
        number.map(|number| number + 0.0).ok_or_else(|| {
            let name = NEEDED.iter().chain(&OPTIONAL).nth(place).unwrap_or(&"");
            let problem = format!("{name}: {text:?} is not a number from {least} to 1e18");
            let cure = match least {
                0.0 => "write what was counted since the look before, as 12 or 0.5",
                _ => "write a number as 1.25, leave the field empty for 1, or use --raw",
            };
            self.refuse(field.column, problem, cure)
        })
    }

    /// Reads the next line that is not empty, and splits it. Whether there was one.
    fn read_line(&mut self) -> Result<bool, CsvError> {
        loop {
            self.line += 1;
            self.bytes.clear();
            let line = self.line;
            let mut limited = Read::take(&mut self.input, LONGEST + 1);
            let read =
                limited.read_until(b'\n', &mut self.bytes).map_err(|source| CsvError::Io { line, source })?;
            if read == 0 {
                return Ok(false);
            }
            if read as u64 > LONGEST {
                let problem = format!("the line is longer than {LONGEST} bytes");
                return Err(self.refuse(1, problem, "write one look a line"));
            }
            let bytes = std::mem::take(&mut self.bytes);
            let Ok(text) = std::str::from_utf8(&bytes) else {
                return Err(self.refuse(1, "this is not UTF-8 text".to_owned(), "write the file in UTF-8"));
            };
            let text = text.strip_suffix('\n').unwrap_or(text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            // A byte order mark, as some programs write it.
            let text = if line == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
            let blank = text.trim().is_empty();
            if !blank {
                self.split(text)?;
            }
            self.bytes = bytes;
            if !blank {
                return Ok(true);
            }
        }
    }

    /// Splits a line at its commas. A field in double quotes may have commas, and quotes that are doubled.
    fn split(&mut self, text: &str) -> Result<(), CsvError> {
        self.used = 0;
        let (mut rest, mut column) = (Some(text), 1);
        while let Some(from) = rest {
            if self.fields.len() == self.used {
                self.fields.push(Field::default());
            }
            let field = &mut self.fields[self.used];
            field.text.clear();
            field.column = column;
            self.used += 1;
            let length = match from.strip_prefix('"') {
                None => {
                    let length = from.find(',').unwrap_or(from.len());
                    field.text.push_str(from.get(..length).unwrap_or_default());
                    length
                }
                Some(quoted) => match unquoted(quoted, &mut field.text) {
                    Some(length) => length + 1,
                    None => {
                        return Err(self.refuse(
                            column,
                            "a quote is not closed, or something follows it".to_owned(),
                            "close it before the comma, and double a quote that is part of the name",
                        ));
                    }
                },
            };
            let (read, after) = from.split_at(length);
            column += read.chars().count() + 1;
            rest = after.strip_prefix(',');
        }
        Ok(())
    }
}

/// Reads up to the closing quote; the bytes of that, the closing quote included, if a comma or the end follows.
fn unquoted(text: &str, into: &mut String) -> Option<usize> {
    let mut read = 0;
    loop {
        let rest = text.get(read..)?;
        let end = rest.find('"')?;
        into.push_str(rest.get(..end)?);
        read += end + 1;
        match text.get(read..)?.chars().next() {
            Some('"') => {
                into.push('"');
                read += 1;
            }
            Some(',') | None => return Some(read),
            Some(_) => return None,
        }
    }
}
