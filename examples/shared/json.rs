//! JSON for a terminal and for scripts alike.

use serde_json::Value;

/// A value in one line of ASCII. What strangers wrote comes out exactly as they wrote it when the line is parsed,
/// and cannot do anything to a terminal before.
pub fn line(value: &Value) -> String {
    let mut line = String::new();
    for char in value.to_string().chars() {
        match char {
            ' '..='~' => line.push(char),
            // Only strings hold such characters, and JSON has an escape for each UTF-16 unit of them.
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    line.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    line
}
