//! Connectors by name, with the options that each declares.
use millstream_plan::options::OptionSpec;

use crate::{ConnectorError, SinkFactory, SinkSpec, SourceFactory, SourceSpec};

/// In which place of a pipeline a table stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Source,
    Sink,
}

/// A connector: its declared options and its factories.
pub struct Connector {
    pub name: &'static str,
    /// Option tables of a source (`None`: cannot be read), without the format's options.
    pub source_options: Option<&'static [&'static [OptionSpec]]>,
    /// Option tables of a sink (`None`: cannot be written), without the format's options.
    pub sink_options: Option<&'static [&'static [OptionSpec]]>,
    /// Prefixes of options that are passed through (`properties.`, `kafka.`).
    pub pass_through: &'static [&'static str],
    /// Metadata keys that a source offers, each with its SQL type.
    pub source_metadata: &'static [(&'static str, &'static str)],
    /// Metadata keys that a sink takes.
    pub sink_metadata: &'static [&'static str],
    /// True if records have a format of the user's choice.
    pub has_format: bool,
    pub source: fn(SourceSpec) -> Result<Box<dyn SourceFactory>, ConnectorError>,
    pub sink: fn(SinkSpec) -> Result<Box<dyn SinkFactory>, ConnectorError>,
}

static CONNECTORS: &[&Connector] = &[];

/// The connector of this name.
#[must_use]
pub fn connector(name: &str) -> Option<&'static Connector> {
    CONNECTORS.iter().copied().find(|c| c.name == name)
}

/// Names of all connectors.
pub fn connector_names() -> impl Iterator<Item = &'static str> {
    CONNECTORS.iter().map(|c| c.name)
}
