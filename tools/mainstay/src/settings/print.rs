//! Showing the settings to people: as a configuration file, and as the help of a flag.

use std::fmt::Write;

use super::{Setting, Settings, TABLE};

/// Where comments are wrapped.
const WIDTH: usize = 100;

/// A configuration file that holds every setting at its default, explained. It passes `config check`.
pub fn print_defaults() -> String {
    let defaults = Settings::default();
    let mut out = String::from("# Every setting of `mainstay start`, at its default.\n");
    let mut section = "";
    for setting in TABLE {
        if setting.section != section {
            section = setting.section;
            let _ = write!(out, "\n[{section}]\n");
        }
        out.push('\n');
        comment(&mut out, setting.meaning);
        comment(&mut out, &allowed(setting, &defaults));
        comment(&mut out, &format!("Flag --{}, variable {}.", setting.flag(), setting.variable()));
        let _ = match setting.toml_value(&defaults) {
            Some(value) => writeln!(out, "{} = {value}", setting.name),
            None => writeln!(out, "# {} = \"{}\"", setting.name, setting.value_name()),
        };
    }
    out
}

/// The help of a setting's flag.
pub fn describe(setting: &Setting) -> String {
    format!("{} {} [env: {}]", setting.meaning, allowed(setting, &Settings::default()), setting.variable())
}

fn allowed(setting: &Setting, defaults: &Settings) -> String {
    let unit = setting.unit_text().map(|unit| format!(" Unit: {unit}.")).unwrap_or_default();
    let default = setting.plain_value(defaults).unwrap_or_else(|| none(setting).to_owned());
    format!("Default: {default}. Range: {}.{unit}", setting.range_text())
}

fn none(setting: &Setting) -> &'static str {
    if setting.is_optional() { "none" } else { "none; it has to be given" }
}

fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}
