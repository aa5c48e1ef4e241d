//! Label matchers as in `PromQL`, without the braces: `code=~"5..",method="GET"`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};

/// The labels of a series, without the metric's name.
pub type Labels = BTreeMap<String, String>;

/// A compiled expression may take this many bytes; enough for any list of status codes or routes.
const REGEX_SIZE: usize = 256 * 1024;

/// Label matchers that all must hold. None at all match every series.
#[derive(Clone, Debug, Default)]
pub struct Matchers(Vec<Matcher>);

#[derive(Clone, Debug)]
struct Matcher {
    label: String,
    test: Test,
    value: String,
}

#[derive(Clone, Debug)]
enum Test {
    Equal,
    NotEqual,
    Match(Regex),
    NoMatch(Regex),
}

/// Why matchers cannot be read, and where.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("at character {position}: {reason}")]
pub struct MatchersError {
    /// Character where reading stopped, from 1.
    pub position: usize,
    /// What is wrong there.
    pub reason: String,
}

impl Matchers {
    /// Whether all matchers hold. As in `PromQL` a label that is absent has the empty string as its value, and an
    /// expression must match the whole value.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|matcher| {
            let value = labels.get(&matcher.label).map_or("", String::as_str);
            match &matcher.test {
                Test::Equal => value == matcher.value,
                Test::NotEqual => value != matcher.value,
                Test::Match(regex) => regex.is_match(value),
                Test::NoMatch(regex) => !regex.is_match(value),
            }
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Matchers {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// As `PromQL` reads it, without braces.
impl fmt::Display for Matchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, matcher) in self.0.iter().enumerate() {
            let operator = match matcher.test {
                Test::Equal => "=",
                Test::NotEqual => "!=",
                Test::Match(_) => "=~",
                Test::NoMatch(_) => "!~",
            };
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}{operator}{}", matcher.label, quote(&matcher.value))?;
        }
        Ok(())
    }
}

/// A `PromQL` string in double quotes.
pub(super) fn quote(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for c in value.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl FromStr for Matchers {
    type Err = MatchersError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut reader = Reader { characters: text.chars().collect(), position: 0 };
        let mut matchers = Vec::new();
        loop {
            reader.space();
            if reader.peek().is_none() {
                return Ok(Self(matchers));
            }
            matchers.push(reader.matcher()?);
            reader.space();
            match reader.peek() {
                None => {}
                Some(',') => reader.position += 1,
                Some(other) => return Err(reader.error(format!("expected a comma, found {other:?}"))),
            }
        }
    }
}

struct Reader {
    characters: Vec<char>,
    position: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.position).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.position += usize::from(next.is_some());
        next
    }

    fn space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.position += 1;
        }
    }

    fn error(&self, reason: impl Into<String>) -> MatchersError {
        MatchersError { position: self.position + 1, reason: reason.into() }
    }

    fn matcher(&mut self) -> Result<Matcher, MatchersError> {
        let start = self.position;
        let label = self.label()?;
        if label == "__name__" {
            self.position = start;
            return Err(self.error("the name of the metric goes into `metric`"));
        }
        self.space();
        let (negated, expression) = self.operator()?;
        self.space();
        let start = self.position;
        let value = self.string()?;
        let test = match (negated, expression) {
            (false, false) => Test::Equal,
            (true, false) => Test::NotEqual,
            (negated, true) => {
                let regex = anchored(&value).map_err(|reason| {
                    self.position = start;
                    self.error(reason)
                })?;
                if negated { Test::NoMatch(regex) } else { Test::Match(regex) }
            }
        };
        Ok(Matcher { label, test, value })
    }

    fn label(&mut self) -> Result<String, MatchersError> {
        let mut label = String::new();
        while let Some(c) = self
            .peek()
            .filter(|c| c.is_ascii_alphabetic() || *c == '_' || (!label.is_empty() && c.is_ascii_digit()))
        {
            label.push(c);
            self.position += 1;
        }
        match self.peek() {
            _ if !label.is_empty() => Ok(label),
            Some('{') => Err(self.error("write the matchers without braces")),
            Some(other) => Err(self.error(format!("expected the name of a label, found {other:?}"))),
            None => Err(self.error("expected the name of a label")),
        }
    }

    /// Whether it is negated, and whether it takes an expression.
    fn operator(&mut self) -> Result<(bool, bool), MatchersError> {
        let operator = (self.peek(), self.characters.get(self.position + 1).copied());
        let (negated, expression, length) = match operator {
            (Some('='), Some('~')) => (false, true, 2),
            (Some('!'), Some('~')) => (true, true, 2),
            (Some('!'), Some('=')) => (true, false, 2),
            (Some('='), _) => (false, false, 1),
            _ => return Err(self.error("expected one of = != =~ !~")),
        };
        self.position += length;
        Ok((negated, expression))
    }

    fn string(&mut self) -> Result<String, MatchersError> {
        let Some(quote @ ('"' | '\'' | '`')) = self.peek() else {
            return Err(self.error("expected a value in quotes"));
        };
        let start = self.position;
        self.position += 1;
        let mut value = String::new();
        loop {
            match self.next() {
                Some(c) if c == quote => return Ok(value),
                Some('\\') if quote != '`' => value.push(self.escape(quote)?),
                Some('\n') if quote != '`' => {
                    self.position -= 1;
                    return Err(self.error("a line break within the quotes"));
                }
                Some(c) => value.push(c),
                None => {
                    self.position = start;
                    return Err(self.error("the value's closing quote is missing"));
                }
            }
        }
    }

    /// What follows a backslash, as in Go: `\n`, `\\`, the quote, `\x41`, `\101`, `\u0041`, `\U00000041`.
    fn escape(&mut self, quote: char) -> Result<char, MatchersError> {
        let start = self.position;
        let fail = |reader: &mut Self| {
            reader.position = start;
            Err(reader.error("unknown escape; a backslash itself is written \\\\"))
        };
        let (base, digits) = match self.next() {
            Some('a') => return Ok('\u{7}'),
            Some('b') => return Ok('\u{8}'),
            Some('f') => return Ok('\u{c}'),
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some('v') => return Ok('\u{b}'),
            Some('\\') => return Ok('\\'),
            Some(c) if c == quote => return Ok(c),
            Some('x') => (16, 2),
            Some('u') => (16, 4),
            Some('U') => (16, 8),
            Some('0'..='7') => {
                self.position -= 1;
                (8, 3)
            }
            _ => return fail(self),
        };
        let mut code = 0_u32;
        for _ in 0..digits {
            let Some(digit) = self.next().and_then(|c| c.to_digit(base)) else { return fail(self) };
            code = code.saturating_mul(base).saturating_add(digit);
        }
        match char::from_u32(code) {
            // A single byte above 127 is no character by itself.
            Some(c) if digits > 3 || c.is_ascii() => Ok(c),
            _ => fail(self),
        }
    }
}

/// As Prometheus compiles it: anchored at both ends, the dot matches line breaks too.
fn anchored(expression: &str) -> Result<Regex, String> {
    RegexBuilder::new(&format!("^(?s:{expression})$")).size_limit(REGEX_SIZE).build().map_err(|error| {
        match error {
            regex::Error::CompiledTooBig(_) => "the expression is too large".to_owned(),
            // The library's message spans lines and draws a caret; its last line is the reason.
            other => {
                let message = other.to_string();
                let reason = message.lines().next_back().unwrap_or_default();
                format!("not a regular expression: {}", reason.strip_prefix("error: ").unwrap_or(reason))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn holds(text: &str, pairs: &[(&str, &str)]) -> bool {
        text.parse::<Matchers>().unwrap().matches(&labels(pairs))
    }

    #[test]
    fn matches_as_promql_does() {
        assert!(holds("", &[("code", "200")]));
        assert!(holds(r#"code=~"5..""#, &[("code", "503")]));
        assert!(!holds(r#"code=~"5..""#, &[("code", "5030")]), "anchored at the end");
        assert!(!holds(r#"code=~"5..""#, &[("code", "1503")]), "anchored at the start");
        assert!(!holds(r#"code=~"500|5""#, &[("code", "55")]), "the anchors hold for each alternative");
        assert!(holds(r#" code =~ "5.." , method != "GET" , "#, &[("code", "500"), ("method", "POST")]));
        assert!(!holds(r#"code=~"5..",method="GET""#, &[("code", "500"), ("method", "POST")]));
        assert!(holds(r#"code!~"5..""#, &[("code", "200")]));
        assert!(holds(r#"code="""#, &[]), "an absent label is empty");
        assert!(!holds(r#"code!="""#, &[]));
        assert!(holds(r#"code=~".*""#, &[]));
        assert!(!holds(r#"code=~".+""#, &[]));
        assert!(holds("path=`a\\d`", &[("path", "a\\d")]), "no escapes within backticks");
        assert!(holds(r#"path="a\\d\"\u00e9\x41\101""#, &[("path", "a\\d\"\u{e9}AA")]));
        assert!(holds(r"path='it\'s'", &[("path", "it's")]));
        assert!(holds(r#"path=~"a.b""#, &[("path", "a\nb")]), "the dot matches a line break");
    }

    #[test]
    fn says_where_and_what() {
        for (text, position, said) in [
            (r#"{code="5"}"#, 1, "without braces"),
            (r"code", 5, "expected one of"),
            (r"code=5", 6, "in quotes"),
            (r#"code="5"#, 6, "closing quote"),
            (r#"code="5" method="x""#, 10, "expected a comma"),
            (r#"code=~"5(""#, 7, "not a regular expression: unclosed group"),
            (r#"code="\d""#, 8, "unknown escape"),
            (r#"__name__="x""#, 1, "goes into `metric`"),
            (r#"code="5",,"#, 10, "expected the name of a label"),
            (r#"code=~"(a{1000}){1000}""#, 7, "too large"),
            (r#"é="5""#, 1, "expected the name of a label"),
        ] {
            let error = text.parse::<Matchers>().unwrap_err();
            assert!(error.reason.contains(said), "{text}: {error}");
            assert_eq!(error.position, position, "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in any::<String>()) {
            let text = format!("a={}", quote(&value));
            let matchers: Matchers = text.parse().unwrap();
            prop_assert!(matchers.matches(&labels(&[("a", &value)])));
            prop_assert_eq!(matchers.to_string().parse::<Matchers>().unwrap(), matchers);
        }

        #[test]
        fn never_panics(text in any::<String>(), near in r#"[a-z]{0,3}[=!~]{0,2}["'`\\xuU0-9{(,a-f]{0,12}"#) {
            let _ = text.parse::<Matchers>();
            let _ = near.parse::<Matchers>();
        }
    }
}
