//! Keys of a task's state table: operator id (two bytes, big endian), a namespace byte of the operator's choice, then
//! the operator's own bytes. Byte order of keys is order of (operator, namespace, own bytes), so one operator's table is
//! one contiguous range.
use millstream_plan::OperatorId;

/// Bytes in front of an operator's own key.
pub const PREFIX_LEN: usize = 3;

/// The prefix of all keys of `operator` in `namespace`.
#[must_use]
pub fn state_prefix(operator: OperatorId, namespace: u8) -> [u8; PREFIX_LEN] {
    let [high, low] = operator.0.to_be_bytes();
    [high, low, namespace]
}

/// The whole key of an operator's own key `own`.
#[must_use]
pub fn state_key(operator: OperatorId, namespace: u8, own: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(PREFIX_LEN + own.len());
    key.extend_from_slice(&state_prefix(operator, namespace));
    key.extend_from_slice(own);
    key
}

/// Takes a key apart; `None` when it is too short to be one.
#[must_use]
pub fn split_key(key: &[u8]) -> Option<(OperatorId, u8, &[u8])> {
    let (&[high, low, namespace], own) = key.split_first_chunk::<PREFIX_LEN>()?;
    Some((OperatorId(u16::from_be_bytes([high, low])), namespace, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_operator_namespace_and_own_bytes() {
        let parts: [(u16, u8, &[u8]); 5] = [(1, 255, b"z"), (2, 0, b""), (2, 0, b"a"), (2, 1, b""), (256, 0, b"")];
        let keys: Vec<_> = parts.iter().map(|(op, ns, own)| state_key(OperatorId(*op), *ns, own)).collect();
        assert!(keys.is_sorted());
        for ((op, ns, own), key) in parts.iter().zip(&keys) {
            assert_eq!(split_key(key), Some((OperatorId(*op), *ns, *own)));
            assert!(key.starts_with(&state_prefix(OperatorId(*op), *ns)));
        }
        assert_eq!(split_key(b"ab"), None);
    }
}
