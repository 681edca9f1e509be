//! Arrays as text, in PostgreSQL's way of writing them: `{1,"a b",NULL}`, and vectors: `1 2`.

/// The elements of an array or vector; a missing one is NULL. Nested arrays are not told apart.
pub(super) fn elements(text: &str) -> Vec<Option<String>> {
    let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return text.split_ascii_whitespace().map(|element| Some(element.to_owned())).collect();
    };
    let mut elements = Vec::new();
    let mut characters = inner.chars().peekable();
    while characters.peek().is_some() {
        let (mut element, mut quoted, mut within) = (String::new(), false, false);
        while let Some(character) = characters.next() {
            match character {
                '"' => {
                    quoted = true;
                    within = !within;
                }
                '\\' => element.extend(characters.next()),
                ',' if !within => break,
                other => element.push(other),
            }
        }
        elements.push((quoted || element != "NULL").then_some(element));
    }
    elements
}

/// An array of these elements.
pub(super) fn array(elements: impl IntoIterator<Item = Option<String>>) -> String {
    let elements: Vec<String> = elements.into_iter().map(|element| element.map_or("NULL".to_owned(), quoted)).collect();
    format!("{{{}}}", elements.join(","))
}

fn quoted(element: String) -> String {
    let special = |c: char| matches!(c, '"' | '\\' | '{' | '}' | ',') || c.is_whitespace();
    if element.is_empty() || element.contains(special) || element.eq_ignore_ascii_case("null") {
        format!("\"{}\"", element.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        element
    }
}

/// The elements as a JSON array, numbers as such: what SQLite makes rows of.
pub(super) fn json(elements: &[Option<String>]) -> String {
    let one = |element: &Option<String>| match element {
        None => "null".to_owned(),
        Some(text) if text.parse::<i64>().is_ok_and(|number| number.to_string() == *text) => text.clone(),
        Some(text) => json_string(text),
    };
    format!("[{}]", elements.iter().map(one).collect::<Vec<_>>().join(","))
}

fn json_string(text: &str) -> String {
    let mut json = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_read_as_they_are_written() {
        let some = |text: &str| Some(text.to_owned());
        for (text, expected) in [
            ("{}", vec![]),
            ("{1,2}", vec![some("1"), some("2")]),
            ("1 2", vec![some("1"), some("2")]),
            (
                "{NULL,\"NULL\",\"\",\"a b\",\"q\\\"\\\\,{}\"}",
                vec![None, some("NULL"), some(""), some("a b"), some("q\"\\,{}")],
            ),
        ] {
            assert_eq!(elements(text), expected, "{text}");
            if text.starts_with('{') {
                assert_eq!(array(expected), text);
            }
        }
    }

    #[test]
    fn json_has_what_json_needs_escaped() {
        let all = [Some("7".to_owned()), Some("07".to_owned()), None, Some("a\"\n\\".to_owned())];
        assert_eq!(json(&all), "[7,\"07\",null,\"a\\\"\\u000a\\\\\"]");
    }
}
