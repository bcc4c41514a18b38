//! One text for one JSON value: RFC 8785, of which we need no floating-point numbers.

use serde_json::Value;

/// The canonical text: keys sorted, no blanks, strings escaped no more than they must be (RFC 8785, section 3.2).
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            // By UTF-16 code units (section 3.2.3). Whether serde_json keeps the order of insertion, a feature of it decides
            // that any crate can switch on.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            list('{', fields.into_iter(), '}', out, |(key, value), out| {
                quote(key, out);
                out.push(':');
                write(value, out);
            });
        }
        Value::Array(items) => list('[', items.iter(), ']', out, write),
        Value::String(text) => quote(text, out),
        // Whole numbers alike in both, up to 2^53; records hold no others.
        Value::Number(_) | Value::Bool(_) | Value::Null => out.push_str(&value.to_string()),
    }
}

fn list<T>(
    open: char,
    items: impl Iterator<Item = T>,
    close: char,
    out: &mut String,
    write: impl Fn(T, &mut String),
) {
    out.push(open);
    for (n, item) in items.enumerate() {
        if n > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(close);
}

fn quote(text: &str, out: &mut String) {
    // serde_json escapes as section 3.2.2.2 says.
    out.push_str(&Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_at_every_depth_and_strings_escaped_as_the_rfc_says() {
        let value = json!({"b": [3, true, null, {"z": 1, "y": 2}], "a": "\u{8}\t\n\u{c}\r\"\\/\u{1f}\u{7f}\u{20ac}é"});
        let wanted =
            "{\"a\":\"\\b\\t\\n\\f\\r\\\"\\\\/\\u001f\u{7f}€é\",\"b\":[3,true,null,{\"y\":2,\"z\":1}]}";
        assert_eq!(text(&value), wanted);
        // Section 3.2.3's own example of an order that is not that of the characters.
        let keys =
            json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7});
        let wanted = "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}";
        assert_eq!(text(&keys), wanted);
    }
}
