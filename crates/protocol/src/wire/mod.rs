//! The wire types, generated from `proto/`, and their conversions. Nothing here leaves the crate, and nothing that a peer sends
//! panics: a missing or impossible field is an [`Invalid`].
mod control;
mod plan;

use std::fmt;

/// Generated from `proto/control.proto`.
#[expect(clippy::allow_attributes, reason = "generated")]
pub(crate) mod control_v1 {
    tonic::include_proto!("millstream.control.v1");
}

/// Generated from `proto/shuffle.proto`.
#[expect(clippy::allow_attributes, reason = "generated")]
pub(crate) mod shuffle_v1 {
    tonic::include_proto!("millstream.shuffle.v1");
}

/// A message of a peer that no build of this version sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("field '{0}' is missing")]
    Missing(&'static str),
    #[error("field '{field}' has the impossible value {value}")]
    Value { field: &'static str, value: String },
}

/// A field that must be there.
pub(crate) fn required<T>(field: Option<T>, name: &'static str) -> Result<T, Invalid> {
    field.ok_or(Invalid::Missing(name))
}

/// A number that must fit the domain's type.
pub(crate) fn narrow<W: Copy + fmt::Display, D: TryFrom<W>>(value: W, field: &'static str) -> Result<D, Invalid> {
    D::try_from(value).map_err(|_| Invalid::Value { field, value: value.to_string() })
}

/// Bytes of a fixed length.
pub(crate) fn exact<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N], Invalid> {
    bytes.try_into().map_err(|_| Invalid::Value { field, value: format!("of {} bytes", bytes.len()) })
}
