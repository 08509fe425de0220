//! What a point is to do, in gofail's words: `[N*|P%]action[(value)]`, several of them behind each other with `->`, of which the
//! first that is due is done (gofail `runtime/terms.go`).

use std::time::Duration;

use rand::rngs::OsRng;
use rand::{Rng, TryRngCore};

use crate::config::parse_nanoseconds;

/// What one term does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Nothing.
    Off,
    /// A value is returned.
    Return,
    /// The thread sleeps.
    Sleep(Duration),
    /// The process stops, with this text if there is one.
    Panic(Option<String>),
    /// The point is named on standard output.
    Print,
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    /// So many times more.
    Count(u64),
    /// So often of a hundred.
    Percent(f64),
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    conditions: Vec<Condition>,
    action: Action,
}

/// All terms of a point.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    text: String,
    chain: Vec<Term>,
    /// How often one was due.
    pub count: u64,
}

impl Terms {
    /// Reads them; `None` if they are none.
    pub fn parse(text: &str) -> Option<Self> {
        let chain = text.split("->").map(Term::parse).collect::<Option<Vec<_>>>()?;
        Some(Self { text: text.to_owned(), chain, count: 0 })
    }

    /// As they were given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is to be done now.
    pub fn due(&mut self) -> Option<Action> {
        for term in &mut self.chain {
            if term.conditions.iter_mut().all(Condition::is_met) {
                self.count += 1;
                return Some(term.action.clone());
            }
        }
        None
    }
}

impl Condition {
    fn is_met(&mut self) -> bool {
        match self {
            Condition::Count(left) => {
                let is_left = *left > 0;
                *left = left.saturating_sub(1);
                is_left
            }
            Condition::Percent(percent) => OsRng.unwrap_err().random_range(0.0..100.0) < *percent,
        }
    }
}

impl Term {
    fn parse(text: &str) -> Option<Self> {
        let (mut conditions, mut rest) = (Vec::new(), text);
        while let Some(end) = rest.find(|byte: char| !byte.is_ascii_digit() && byte != '.').filter(|end| *end > 0) {
            let (number, after) = rest.split_at(end);
            conditions.push(match after.chars().next()? {
                '*' => Condition::Count(number.parse().ok()?),
                '%' => Condition::Percent(number.parse().ok()?),
                _ => return None,
            });
            rest = &after[1..];
        }
        let (name, value) = match rest.split_once('(') {
            Some((name, value)) => (name, Some(value.strip_suffix(')')?)),
            None => (rest, None),
        };
        let value = value.filter(|value| !value.is_empty());
        let unquoted =
            |value: &str| value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).map(str::to_owned);
        let action = match name {
            "off" => Action::Off,
            "return" => Action::Return,
            "print" => Action::Print,
            "panic" => Action::Panic(value.map(|value| unquoted(value).unwrap_or_else(|| value.to_owned()))),
            "sleep" => {
                let value = value?;
                let span = match unquoted(value) {
                    Some(text) => Duration::from_nanos(parse_nanoseconds(&text)?.try_into().ok()?),
                    None => Duration::from_millis(value.parse().ok()?),
                };
                Action::Sleep(span)
            }
            _ => return None,
        };
        Some(Self { conditions, action })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> Option<Action> {
        Terms::parse(text)?.due()
    }

    #[test]
    fn words_are_gofails() {
        assert_eq!(first("panic"), Some(Action::Panic(None)));
        assert_eq!(first(r#"panic("now")"#), Some(Action::Panic(Some("now".to_owned()))));
        assert_eq!(first(r#"sleep("1.5s")"#), Some(Action::Sleep(Duration::from_millis(1500))));
        assert_eq!(first("sleep(20)"), Some(Action::Sleep(Duration::from_millis(20))));
        for text in ["return", "return()", "return(true)", "return(7)", r#"return("error")"#] {
            assert_eq!(first(text), Some(Action::Return), "{text}");
        }
        assert_eq!(first("off"), Some(Action::Off));
        assert_eq!(first("print"), Some(Action::Print));
        for text in [
            "",
            "nonsense",
            "break",
            "sleep",
            "sleep(x)",
            r#"sleep("x")"#,
            "3panic",
            "3",
            "3*",
            "panic(",
            "panic->",
            "%panic",
        ] {
            assert_eq!(Terms::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_that_is_due_is_done() {
        let mut terms = Terms::parse("2*sleep(1)->1*return->off").expect("three terms");
        let done: Vec<_> = (0..4).filter_map(|_| terms.due()).collect();
        let sleep = Action::Sleep(Duration::from_millis(1));
        assert_eq!(done, [sleep.clone(), sleep, Action::Return, Action::Off]);
        assert_eq!((terms.count, terms.text()), (4, "2*sleep(1)->1*return->off"));
        let mut never = Terms::parse("0%panic").expect("a term");
        assert!((0..1000).all(|_| never.due().is_none()));
        assert_eq!(never.count, 0);
        let mut always = Terms::parse("100.0%return").expect("a term");
        assert!((0..1000).all(|_| always.due().is_some()));
    }
}
