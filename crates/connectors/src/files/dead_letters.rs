//! Dead letters as files of JSON lines, below a location of the user's choice.
//!
//! A file holds the letters of one task of one source table from the flush before to the epoch in its name:
//! `<table>/epoch-<epoch>-task-<task>.jsonl`. A line has the keys `source`, `split`, `position`, `timestamp` (milliseconds or null), `reason`, `detail`,
//! `key` and `value` (text, or null where it is no UTF-8), and then `key_base64` or `value_base64`.
use millstream_plan::EpochPlan;
use serde::Serialize;

use super::commit::FileCommitter;
use super::folder::at;
use super::partitions::escape;
use super::s3::S3Options;
use crate::{ConnectorError, DeadLetter, DeadLetterReason, EncodedEpoch, OutputFile, Payload, SinkCommitter};

/// Letters gathered beyond this size do not wait for a flush.
const FILE_BYTES: usize = 8 << 20;

/// Encodes the dead letters of one task of one source table.
#[derive(Debug)]
pub struct DeadLetterEncoder {
    folder: String,
    task: u16,
    text: Vec<u8>,
    rows: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    source: &'a str,
    split: &'a str,
    position: u64,
    timestamp: Option<i64>,
    reason: DeadLetterReason,
    detail: &'a str,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// Text if it is UTF-8, base64 otherwise.
fn text_or_base64(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(base64(bytes))),
    }
}

impl DeadLetterEncoder {
    /// For the letters of task `task` of the source table `source`.
    #[must_use]
    pub fn new(source: &str, task: u16) -> Self {
        Self { folder: escape(source), task, text: Vec::new(), rows: 0 }
    }

    /// Takes letters of the current epoch.
    ///
    /// # Errors
    /// `Fatal` if JSON cannot be made of them.
    pub fn push(&mut self, letters: Vec<DeadLetter>) -> Result<(), ConnectorError> {
        for letter in letters {
            let (key, key_base64) = letter.key.as_deref().map_or((None, None), text_or_base64);
            let (value, value_base64) = text_or_base64(&letter.value);
            let line = Line {
                source: &letter.source,
                split: &letter.split.0,
                position: letter.position,
                timestamp: letter.timestamp_ms,
                reason: letter.reason,
                detail: &letter.detail,
                key,
                key_base64,
                value,
                value_base64,
            };
            serde_json::to_writer(&mut self.text, &line).map_err(|e| {
                ConnectorError::Fatal(format!("cannot encode a dead letter of '{}': {e}", letter.source))
            })?;
            self.text.push(b'\n');
            self.rows += 1;
        }
        Ok(())
    }

    /// The epoch has ended: letters leave at a flush, or when many have come together.
    pub fn end_epoch(&mut self, plan: &EpochPlan) -> EncodedEpoch {
        let due = plan.flush || plan.checkpoint || plan.last || self.text.len() >= FILE_BYTES;
        if self.text.is_empty() || !due {
            return EncodedEpoch { epoch: plan.epoch, ..EncodedEpoch::default() };
        }
        let (text, rows) = (std::mem::take(&mut self.text), std::mem::take(&mut self.rows));
        let path = format!("{}/epoch-{:010}-task-{:03}.jsonl", self.folder, plan.epoch.0, self.task);
        let bytes = text.len() as u64;
        let file = OutputFile { path, bytes: text.into(), rows };
        EncodedEpoch { epoch: plan.epoch, rows, bytes, payload: Payload::Files(vec![file]) }
    }
}

/// Publishes the files of [`DeadLetterEncoder`]s below `location` (a path, `file://` or `s3://`).
///
/// # Errors
/// `User` for a location that cannot be used.
pub fn dead_letter_committer(location: &str, s3: &S3Options) -> Result<Box<dyn SinkCommitter>, ConnectorError> {
    Ok(Box::new(FileCommitter::new(at(location, s3)?, None)))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(three.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use millstream_plan::Epoch;

    use super::*;

    fn plan(epoch: u64, flush: bool) -> EpochPlan {
        EpochPlan { epoch: Epoch(epoch), now_ms: 0, sources: Vec::new(), checkpoint: false, flush, last: false }
    }

    #[test]
    fn letters_wait_for_a_flush_and_bytes_that_are_no_text_are_kept() {
        let letter = |position, key: Option<&[u8]>, value: &[u8]| DeadLetter {
            source: "orders".to_owned(),
            split: "t/0".into(),
            position,
            timestamp_ms: Some(5),
            reason: DeadLetterReason::Bad,
            detail: "no \"JSON\"".to_owned(),
            key: key.map(<[u8]>::to_vec),
            value: value.to_vec(),
        };
        let mut encoder = DeadLetterEncoder::new("orders", 2);
        encoder.push(vec![letter(7, None, b"{")]).unwrap();
        assert!(matches!(encoder.end_epoch(&plan(3, false)).payload, Payload::Empty));
        encoder.push(vec![letter(8, Some(b"\xffab"), b"\x80")]).unwrap();
        let encoded = encoder.end_epoch(&plan(4, true));
        let Payload::Files(files) = encoded.payload else { panic!("no files") };
        assert_eq!((encoded.rows, files[0].path.as_str()), (2, "orders/epoch-0000000004-task-002.jsonl"));
        assert_eq!(
            String::from_utf8(files[0].bytes.to_vec()).unwrap(),
            concat!(
                r#"{"source":"orders","split":"t/0","position":7,"timestamp":5,"reason":"bad","detail":"no \"JSON\"","key":null,"value":"{"}"#,
                "\n",
                r#"{"source":"orders","split":"t/0","position":8,"timestamp":5,"reason":"bad","detail":"no \"JSON\"","key":null,"key_base64":"/2Fi","value":null,"value_base64":"gA=="}"#,
                "\n"
            )
        );
        assert!(matches!(encoder.end_epoch(&plan(5, true)).payload, Payload::Empty));
    }

    #[test]
    fn base64_of_every_length() {
        let texts = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="];
        assert!(texts.iter().enumerate().all(|(n, text)| base64(&b"foob"[..n]) == *text));
    }
}
