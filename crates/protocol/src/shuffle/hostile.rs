//! Damaged and hostile streams: every one is an error or a valid batch, and the process goes on.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, DictionaryArray, Int32Array, Int64Array};
use arrow::datatypes::Int8Type;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use millstream_plan::{Epoch, Era, StageId, TaskId};
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::assemble::{Assembler, Broken, Progress};
use super::encode::Encoder;
use super::sample::all_types;
use super::*;
use crate::wire::shuffle_v1 as wire;
use crate::wire::shuffle_v1::part::Part;

const LIMIT: usize = 1 << 20;
const TASK: TaskId = TaskId { stage: StageId(1), index: 2 };

fn parts(batches: Vec<Rows>) -> Vec<wire::Part> {
    let frames = vec![Frame { edge: 1, from: TASK, to: TASK, sequence: 0, batches }];
    let mut complete = vec![EdgeEnd { edge: 1, from: TASK }];
    let piece = Encoder::new(LIMIT).piece(Epoch(1), &mut frames.into_iter(), &mut complete).unwrap().unwrap();
    piece.parts
}

fn assemble(parts: impl IntoIterator<Item = wire::Part>) -> Result<Option<Bundle>, Broken> {
    let mut assembler = Assembler::new(Era::default(), "a".into(), LIMIT);
    let mut bundle = None;
    for part in parts {
        if let Progress::Bundle(complete, _) = assembler.push(part)? {
            bundle = Some(complete);
        }
    }
    Ok(bundle)
}

fn sample() -> Vec<wire::Part> {
    let weights = Some(Int64Array::from(vec![-1; 40]));
    parts(vec![Rows { rows: all_types(40, 1), weights }, Rows { rows: all_types(9, 2), weights: None }])
}

/// The bytes of a schema or batch that Arrow reads.
fn arrow_bytes(part: &mut wire::Part) -> Vec<&mut Bytes> {
    match part.part.as_mut() {
        Some(Part::Schema(schema)) => vec![&mut schema.message],
        Some(Part::Batch(batch)) => vec![&mut batch.header, &mut batch.data],
        _ => Vec::new(),
    }
}

fn flip(bytes: &mut Bytes, random: &mut StdRng) {
    let mut damaged = bytes.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..damaged.len());
        // Single bits find offsets and lengths, whole bytes find signs and sizes.
        damaged[at] = if random.random() { damaged[at] ^ (1 << random.random_range(0..8)) } else { random.random() };
    }
    *bytes = damaged.into();
}

#[test]
fn flipped_bits_are_found_by_the_checksum() {
    let sound = sample();
    assert!(assemble(sound.clone()).unwrap().is_some());
    let mut random = StdRng::seed_from_u64(11);
    for case in 0..2_000 {
        let mut damaged = sound.clone();
        let batches: Vec<_> = damaged.iter_mut().filter(|p| matches!(p.part, Some(Part::Batch(_)))).collect();
        let count = batches.len();
        let batch = batches.into_iter().nth(random.random_range(0..count)).unwrap();
        let before = batch.clone();
        let mut bytes = arrow_bytes(batch);
        let which = random.random_range(0..bytes.len());
        flip(bytes[which], &mut random);
        if *batch == before {
            continue;
        }
        let error = assemble(damaged).unwrap_err();
        assert!(matches!(error, Broken::Checksum { edge: 1 }), "case {case}: {error}");
    }
}

/// A peer that makes its own checksums: Arrow's validation has to do it alone.
#[test]
fn hostile_arrow_messages_give_errors_or_valid_batches() {
    let sound = sample();
    let mut random = StdRng::seed_from_u64(12);
    let (mut refused, mut valid) = (0, 0);
    for case in 0..20_000 {
        let mut damaged = sound.clone();
        let part = loop {
            let at = random.random_range(0..damaged.len());
            if !arrow_bytes(&mut damaged[at]).is_empty() {
                break &mut damaged[at];
            }
        };
        let mut bytes = arrow_bytes(part);
        let which = random.random_range(0..bytes.len());
        if random.random_bool(0.1) {
            let length = random.random_range(0..bytes[which].len());
            bytes[which].truncate(length);
        } else {
            flip(bytes[which], &mut random);
        }
        if let Some(Part::Batch(batch)) = part.part.as_mut() {
            let weights = batch.weights_length.unwrap_or(0);
            batch.body_length = (batch.data.len() as u64).saturating_sub(weights);
            batch.checksum = super::ipc::checksum(&batch.header, &batch.data);
        }
        match assemble(damaged) {
            Err(_) => refused += 1,
            Ok(bundle) => {
                valid += 1;
                let batches = bundle.into_iter().flat_map(|b| b.frames).flat_map(|f| f.batches);
                for column in batches.flat_map(|b| b.rows.columns().to_vec()) {
                    column.to_data().validate_full().unwrap_or_else(|error| panic!("case {case}: {error}"));
                }
            }
        }
    }
    assert!(refused > 1_000 && valid > 1_000, "{refused} refused, {valid} valid: the damage is of one kind only");
}

#[test]
fn damaged_parts_do_not_bring_the_process_down() {
    let sound: Vec<Vec<u8>> = sample().iter().map(wire::Part::encode_to_vec).collect();
    let mut random = StdRng::seed_from_u64(13);
    let mut refused = 0;
    for _ in 0..5_000 {
        let mut damaged = sound.clone();
        let count = damaged.len();
        match random.random_range(0..4) {
            0 => {
                damaged.remove(random.random_range(0..count));
            }
            1 => damaged.swap(random.random_range(0..count), random.random_range(0..count)),
            _ => {
                let part = &mut damaged[random.random_range(0..count)];
                // The fields before the data, where the lengths are.
                let at = random.random_range(0..part.len().min(64));
                part[at] = random.random();
            }
        }
        let parts: Result<Vec<_>, _> = damaged.iter().map(|bytes| wire::Part::decode(&bytes[..])).collect();
        refused += usize::from(parts.is_err() || parts.is_ok_and(|parts| assemble(parts).is_err()));
    }
    assert!(refused > 1_000, "{refused}");
}

fn error_of(change: impl FnOnce(&mut Vec<wire::Part>)) -> String {
    let mut parts = sample();
    change(&mut parts);
    assemble(parts).unwrap_err().to_string()
}

fn first_batch(parts: &mut [wire::Part]) -> &mut wire::Batch {
    let batch = parts.iter_mut().find_map(|p| match p.part.as_mut() {
        Some(Part::Batch(batch)) => Some(batch),
        _ => None,
    });
    batch.unwrap()
}

#[test]
fn broken_rules_are_named() {
    assert_eq!(error_of(|p| p.insert(0, wire::Part { part: None })), "invalid part: field 'part' is missing");
    assert_eq!(error_of(|p| drop(p.remove(0))), "unexpected part: a batch without schema");
    assert_eq!(error_of(|p| first_batch(p).first = false), "unexpected part: a batch that continues no frame");
    assert_eq!(error_of(|p| first_batch(p).from = None), "invalid part: field 'task' is missing");
    assert_eq!(
        error_of(|p| first_batch(p).body_length = u64::MAX),
        format!("a bundle is {}, the limit is {LIMIT}", u64::MAX)
    );
    assert_eq!(error_of(|p| first_batch(p).body_length += 1), "unexpected part: the batch before is not complete");
    assert_eq!(error_of(|p| first_batch(p).body_length -= 1), "unexpected part: more data than the batch has");
    let chunk = wire::Part { part: Some(Part::Chunk(wire::Chunk::default())) };
    assert_eq!(error_of(|p| p.insert(0, chunk)), "unexpected part: a chunk of no batch");
    let open = wire::Part { part: Some(Part::Open(wire::Open::default())) };
    assert_eq!(error_of(|p| p.push(open)), "unexpected part: a second Open");
    let finish = wire::Part { part: Some(Part::Finish(wire::Finish {})) };
    assert_eq!(error_of(|p| p.insert(2, finish)), "unexpected part: the bundle before has no end");
}

#[test]
fn what_cannot_be_shuffled_is_said_before_it_is_sent() {
    let refusal = |rows: RecordBatch, weights: Option<Int64Array>| {
        let frames = vec![Frame { edge: 4, from: TASK, to: TASK, sequence: 0, batches: vec![Rows { rows, weights }] }];
        let error = Encoder::new(LIMIT).piece(Epoch(1), &mut frames.into_iter(), &mut Vec::new()).err().unwrap();
        assert!(matches!(error, SendError::Unsupported { edge: 4, .. }), "{error}");
        error.to_string()
    };
    let dictionary: DictionaryArray<Int8Type> = ["a", "b", "a"].into_iter().collect();
    let column: ArrayRef = Arc::new(dictionary);
    let error = refusal(RecordBatch::try_from_iter([("d", column)]).unwrap(), None);
    assert!(error.contains("column 'd' has type Dictionary"), "{error}");
    let column: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
    for weights in [Int64Array::from(vec![1]), Int64Array::from(vec![Some(1), None])] {
        let error = refusal(rows.clone(), Some(weights));
        assert!(error.contains("rows and weights do not match"), "{error}");
    }
}
