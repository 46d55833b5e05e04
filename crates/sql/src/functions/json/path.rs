//! Paths into JSON: SQL's (`lax $.a[0].b`, in the part that Flink has) and Spark's (`$.a[*].b`).
use super::scan::{Kind, Span, elements, members, unquoted};

/// A path; `strict` is SQL's mode in which what is not there is an error.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub strict: bool,
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Member(String),
    Element(usize),
    EachMember,
    EachElement,
}

/// What a path finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    One(Span),
    /// The path has a `*`: all that it stands for.
    Each(Vec<Span>),
}

/// Which of several members of one name counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeated {
    First,
    Last,
}

impl Path {
    /// SQL's: `[lax | strict] $…`; strict where it is not said, as in Flink.
    pub fn sql(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let mode = |m: &str| {
            let word = text.get(..m.len()).is_some_and(|w| w.eq_ignore_ascii_case(m));
            text.get(m.len()..).filter(|rest| word && rest.starts_with(char::is_whitespace)).map(str::trim_start)
        };
        let (strict, rest) = match (mode("lax"), mode("strict")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => (true, text),
        };
        Self::steps(text, rest).map(|steps| Self { strict, steps })
    }

    /// Spark's: `$…`.
    pub fn spark(text: &str) -> Result<Self, String> {
        Self::steps(text, text).map(|steps| Self { strict: false, steps })
    }

    fn steps(whole: &str, text: &str) -> Result<Vec<Step>, String> {
        let wrong = |what: &str| Err(format!("'{whole}' is not a JSON path: {what}"));
        let Some(mut rest) = text.strip_prefix('$') else { return wrong("it begins with $") };
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let dotted = rest.strip_prefix('.');
            let after = dotted.unwrap_or(rest);
            if let Some(inside) = after.strip_prefix('[') {
                let trimmed = inside.trim_start();
                if let Some(quote @ ('\'' | '"')) = trimmed.chars().next() {
                    let Some((name, after)) = trimmed[1..].split_once(quote) else {
                        return wrong("a quote is not closed");
                    };
                    let Some(after) = after.trim_start().strip_prefix(']') else { return wrong("a ] is missing") };
                    steps.push(if name == "*" { Step::EachMember } else { Step::Member(name.to_owned()) });
                    rest = after;
                    continue;
                }
                let Some((index, after)) = inside.split_once(']') else { return wrong("a ] is missing") };
                steps.push(match index.trim() {
                    "*" => Step::EachElement,
                    index => match index.parse() {
                        Ok(index) => Step::Element(index),
                        Err(_) => return wrong(&format!("[{index}] is not supported, only [0] and [*]")),
                    },
                });
                rest = after;
                continue;
            }
            let Some(after) = dotted else { return wrong("a step begins with . or [") };
            if let Some(quoted) = after.strip_prefix('"') {
                let Some((name, after)) = quoted.split_once('"') else { return wrong("a quote is not closed") };
                steps.push(Step::Member(name.to_owned()));
                rest = after;
                continue;
            }
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            match name.trim() {
                "" => return wrong(".. and empty names are not supported"),
                "*" => steps.push(Step::EachMember),
                name if name.contains(['?', '(', ')', '@']) => return wrong("filters and methods are not supported"),
                name => steps.push(Step::Member(name.to_owned())),
            }
            rest = after;
        }
        Ok(steps)
    }

    /// What this finds in a text that was checked.
    pub fn find(&self, text: &str, whole: Span, repeated: Repeated) -> Found {
        let mut at = whole;
        for (i, step) in self.steps.iter().enumerate() {
            let next = match step {
                Step::EachMember | Step::EachElement => {
                    // What is missing before the first * is missing; behind it, it is left out.
                    let right = matches!(
                        (step, Kind::of(at.of(text))),
                        (Step::EachElement, Kind::Array) | (Step::EachMember, Kind::Object)
                    );
                    if !right {
                        return Found::Nothing;
                    }
                    let mut each = Vec::new();
                    all(text, at, &self.steps[i..], repeated, &mut each);
                    return Found::Each(each);
                }
                step => one(text, at, step, repeated),
            };
            match next {
                Some(next) => at = next,
                None => return Found::Nothing,
            }
        }
        Found::One(at)
    }
}

/// The member of this name.
pub(super) fn member(text: &str, object: Span, name: &str, repeated: Repeated) -> Option<Span> {
    let is = |key: &str| match key.contains('\\') {
        false => key.len() == name.len() + 2 && key.get(1..key.len() - 1) == Some(name),
        true => unquoted(key) == name,
    };
    let mut found = members(text, object).filter(|(key, _)| is(key)).map(|(_, value)| value);
    match repeated {
        Repeated::First => found.next(),
        Repeated::Last => found.last(),
    }
}

fn one(text: &str, at: Span, step: &Step, repeated: Repeated) -> Option<Span> {
    match step {
        Step::Member(name) => member(text, at, name, repeated),
        Step::Element(index) => elements(text, at).nth(*index),
        Step::EachMember | Step::EachElement => None,
    }
}

fn all(text: &str, at: Span, steps: &[Step], repeated: Repeated, out: &mut Vec<Span>) {
    let Some((step, rest)) = steps.split_first() else { return out.push(at) };
    match step {
        Step::EachMember => members(text, at).for_each(|(_, value)| all(text, value, rest, repeated, out)),
        Step::EachElement => elements(text, at).for_each(|value| all(text, value, rest, repeated, out)),
        step => one(text, at, step, repeated).into_iter().for_each(|value| all(text, value, rest, repeated, out)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::scan::check;
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        match Path::sql(path).unwrap().find(text, check(text).unwrap(), Repeated::Last) {
            Found::Nothing => vec!["nothing".to_owned()],
            Found::One(span) => vec![span.of(text).to_owned()],
            Found::Each(spans) => {
                std::iter::once("each".to_owned()).chain(spans.iter().map(|s| s.of(text).to_owned())).collect()
            }
        }
    }

    #[test]
    fn paths() {
        let text =
            r#"{"a": {"b c": [1, {"d": "x"}, {"d": 2}], "e": null}, "a.b": [0.998], "a\u0062": 7, "r": 1, "r": 2}"#;
        for (path, wanted) in [
            ("$.a.e", &["null"][..]),
            ("lax $.a['b c'][0]", &["1"]),
            ("strict $.a.\"b c\"[1].d", &["\"x\""]),
            ("$.[\"a.b\"][0]", &["0.998"]),
            ("$.ab", &["7"]),
            ("$.r", &["2"]),
            ("$.a['b c'][*].d", &["each", "\"x\"", "2"]),
            ("$.a['b c'][9]", &["nothing"]),
            ("$.a[0]", &["nothing"]),
            ("$.x.y", &["nothing"]),
            ("$.x[*]", &["nothing"]),
            ("$.a.e[*]", &["nothing"]),
        ] {
            assert_eq!(found(path, text), wanted, "{path}");
        }
        assert_eq!(found("$", "[1]"), ["[1]"]);
        assert_eq!(found("$.*", "{\"a\":1,\"b\":[2]}"), ["each", "1", "[2]"]);
    }

    #[test]
    fn what_is_no_path() {
        for (path, part) in [
            ("a", "begins with $"),
            ("$a", ". or ["),
            ("$..a", "not supported"),
            ("$.a[", "] is missing"),
            ("$.a[-1]", "[-1] is not supported"),
            ("$.a[0 to 2]", "not supported"),
            ("$['a", "not closed"),
            ("$.a ? (@.b > 1)", "filters"),
            ("", "begins with $"),
        ] {
            assert!(Path::sql(path).unwrap_err().contains(part), "{path}");
        }
        assert!(Path::sql("lax $.a").is_ok_and(|p| !p.strict));
        assert!(Path::sql("$.a").is_ok_and(|p| p.strict));
    }
}
