//! `docs`: the pages that are made from the tables in which options are declared, so that they cannot say anything else.
use std::fmt::Write as _;

use millstream_connectors::{Connector, connector, connector_names};
use millstream_formats::FORMAT_OPTIONS;
use millstream_plan::options::{OptionKind, OptionSpec};
use millstream_sql::SETTINGS;

use crate::args::DocsArgs;
use crate::failure::Failure;

/// Writes the pages into a folder.
///
/// # Errors
/// The folder cannot be written to.
pub fn write(args: &DocsArgs) -> Result<(), Failure> {
    for (name, text) in pages() {
        let path = args.folder.join(name);
        std::fs::write(&path, text).map_err(|e| Failure::job(format!("cannot write {}: {e}", path.display())))?;
    }
    Ok(())
}

/// Name and text of each page.
fn pages() -> [(&'static str, String); 4] {
    [("connectors.md", connectors()), ("settings.md", settings()), ("functions.md", functions()), ("cli.md", cli())]
}

const MADE: &str = "<!-- Made by `millstream docs` from the declarations in the source; do not edit. -->\n";

fn settings() -> String {
    let mut page = format!("# Settings of a pipeline\n\n{MADE}\n");
    page.push_str(
        "Set them with `SET 'name' = 'value';` in the file, with `--conf name=value`, or with a variable \
         `MILLSTREAM__SECTION__KEY`: `checkpoint.interval` is `MILLSTREAM__CHECKPOINT__INTERVAL`, `epoch.max-bytes` is \
         `MILLSTREAM__EPOCH__MAX_BYTES`. Flags beat variables, variables beat the file, the file beats defaults. Two names in one cell \
         mean the same; giving both with different values is an error. `millstream run -f FILE --show-config` shows every value and \
         where it comes from. `millstream-driver` takes the same variables, and a TOML file (`--config`) whose entry `interval` in section \
         `[checkpoint]` stands for `MILLSTREAM__CHECKPOINT__INTERVAL`.\n\n",
    );
    table(&mut page, SETTINGS.iter());
    page
}

fn functions() -> String {
    format!("# Functions\n\n{MADE}\n{}", millstream_sql::functions_page())
}

fn connectors() -> String {
    let mut page = format!("# Connectors and formats\n\n{MADE}\n");
    page.push_str(
        "Options stand in `WITH (…)` of `CREATE TABLE`. Names in one cell mean the same (Flink's and Spark's spelling); giving two of \
         them with different values is an error, and so is an unknown name. Durations are written `500 ms`, `10 s`, `1 min`; sizes \
         `64 mb` (binary units).\n\n",
    );
    for name in connector_names() {
        if let Some(found) = connector(name) {
            one(&mut page, found);
        }
    }
    page.push_str("## Formats\n\nOptions of every connector with a format, on the table itself.\n\n");
    table(&mut page, FORMAT_OPTIONS.iter());
    page
}

fn one(page: &mut String, connector: &Connector) {
    let _ = writeln!(page, "## `{}`\n", connector.name);
    let uses = match (connector.source_options, connector.sink_options) {
        (Some(_), Some(_)) => "Can be read and written.",
        (Some(_), None) => "Can be read.",
        _ => "Can be written.",
    };
    let format = if connector.has_format { " Takes a `format`, see [Formats](#formats)." } else { "" };
    let passed: Vec<String> = connector.pass_through.iter().map(|p| format!("`{p}*`")).collect();
    let passed = match connector.name {
        _ if passed.is_empty() => String::new(),
        "datagen" => " Options `fields.<column>.<option>` say what a column holds: `kind` (`random` or `sequence`), `min`, `max`, \
                      `length`, `null-rate`, `max-past`, and `start` and `end` of a sequence."
            .to_owned(),
        _ => format!(" Options {} are passed to the client library.", passed.join(", ")),
    };
    let _ = writeln!(page, "{uses}{format}{passed}\n");
    for (options, what) in [(connector.source_options, "source"), (connector.sink_options, "sink")] {
        let Some(tables) = options else { continue };
        if tables.iter().all(|t| t.is_empty()) {
            let _ = writeln!(page, "The {what} has no options.\n");
            continue;
        }
        let _ = writeln!(page, "### Options of the {what}\n");
        table(page, tables.iter().copied().flatten());
    }
    if !connector.source_metadata.is_empty() {
        let keys = connector.source_metadata.iter().map(|(key, sql)| format!("`{key}` {sql}"));
        let _ = writeln!(page, "Metadata of the source: {}.\n", keys.collect::<Vec<_>>().join(", "));
    }
    if !connector.sink_metadata.is_empty() {
        let keys = connector.sink_metadata.iter().map(|key| format!("`{key}`"));
        let _ = writeln!(page, "Metadata of the sink: {}.\n", keys.collect::<Vec<_>>().join(", "));
    }
}

fn table<'a>(page: &mut String, options: impl Iterator<Item = &'a OptionSpec>) {
    page.push_str("| option | value | default | |\n|---|---|---|---|\n");
    for option in options {
        let names = std::iter::once(option.name).chain(option.synonyms.iter().copied());
        let names: Vec<String> = names.map(|n| format!("`{n}`")).collect();
        let value = match option.kind {
            OptionKind::Text => "text".to_owned(),
            OptionKind::Integer => "number".to_owned(),
            OptionKind::Bool => "true, false".to_owned(),
            OptionKind::Duration => "duration".to_owned(),
            OptionKind::Bytes => "size".to_owned(),
            OptionKind::Choice(choices) => choices.join(", "),
        };
        let default = option.default.map(|d| format!("`{d}`")).unwrap_or_default();
        let cells = [names.join("<br>"), value, default, option.text.to_owned()];
        let _ = writeln!(page, "| {} |", cells.map(|c| c.replace('|', "\\|")).join(" | "));
    }
    page.push('\n');
}

fn cli() -> String {
    let mut page = format!("# Command line\n\n{MADE}\n");
    page.push_str(
        "Logs go to standard error; `RUST_LOG` filters them (`RUST_LOG=info`, `RUST_LOG=millstream_driver=debug`). Rows of a `print` \
         table go to standard output.\n\n",
    );
    let mut command = crate::args::command();
    command.build();
    section(&mut page, &mut command);
    page
}

fn section(page: &mut String, command: &mut clap::Command) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let help = command.render_help().to_string();
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    let _ = writeln!(page, "## `{name}`\n\n```\n{}\n```\n", lines.join("\n"));
    for sub in command.get_subcommands_mut().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
        section(page, sub);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `millstream docs` in the repository's folder repairs it.
    #[test]
    fn the_committed_pages_are_what_the_source_says() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        for (name, text) in pages() {
            let committed = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            assert!(committed == text, "docs/{name} is out of date; run: millstream docs docs");
        }
    }
}
