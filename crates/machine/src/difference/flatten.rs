//! The first difference inside two values of unknown shape, with the path that leads there.

use super::Difference;
use serde_json::Value;

/// How numbers are written.
#[derive(Clone, Copy)]
pub(super) enum Style {
    Decimal,
    Hex,
}

/// Elements of a list that are shown.
const SHOWN_ELEMENTS: usize = 32;

/// The first difference of two values that belong to `path`. Lists of equal length are compared
/// element by element, others are shown as they are.
pub(super) fn first_in_values(
    path: &str,
    left: &Value,
    right: &Value,
    style: Style,
) -> Option<Difference> {
    if left == right {
        return None;
    }
    match (left, right) {
        (Value::Object(ours), Value::Object(theirs)) if ours.keys().eq(theirs.keys()) => {
            (ours.iter().zip(theirs)).find_map(|((key, left), (_, right))| {
                first_in_values(&format!("{path} {key}"), left, right, style)
            })
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            (ours.iter().zip(theirs).enumerate()).find_map(|(n, (left, right))| {
                let path = match path.strip_suffix("queues") {
                    Some(path) => format!("{path}queue {n}"),
                    None => format!("{path}[{n}]"),
                };
                first_in_values(&path, left, right, style)
            })
        }
        _ => Some(Difference {
            item: path.to_owned(),
            hart: None,
            left: text(left, style),
            right: text(right, style),
        }),
    }
}

fn text(value: &Value, style: Style) -> String {
    match (value, style) {
        (Value::Number(number), Style::Hex) => match number.as_u64() {
            Some(number) => format!("{number:#x}"),
            None => number.to_string(),
        },
        (Value::String(name), _) => name.clone(),
        (Value::Null, _) => "none".to_owned(),
        (Value::Array(values), _) => {
            let shown = values.iter().take(SHOWN_ELEMENTS);
            let shown: Vec<String> = shown.map(|value| text(value, style)).collect();
            let rest = values.len().saturating_sub(SHOWN_ELEMENTS);
            match rest {
                0 => format!("[{}]", shown.join(", ")),
                _ => format!("[{}, and {rest} more]", shown.join(", ")),
            }
        }
        (Value::Object(fields), _) => {
            let fields = fields
                .iter()
                .map(|(key, value)| format!("{key}: {}", text(value, style)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        (Value::Bool(_) | Value::Number(_), _) => value.to_string(),
    }
}
