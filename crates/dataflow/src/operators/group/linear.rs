//! `count`, `sum` and `avg` over updating input: a change of a row changes the result by the row's part, so counts and sums are all
//! that is kept. Integers and decimals wrap as DataFusion's do, so that a detour over an overflow leads back; floats are
//! added exactly.
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal256Array, Float64Array, Int64Array, UInt64Array,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Float64Type, Int64Type, TimeUnit, UInt64Type, i256,
};
use datafusion::error::{DataFusionError, Result};

use super::exact::{ExactSum, take, take_i64};
use super::table::Accumulators;
use crate::graph::GroupCall;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Count,
    Sum,
    Avg,
}

/// Sums by slot.
enum Sums {
    None,
    /// Of 64-bit integers and durations, by their bits.
    Int(Vec<i64>),
    Decimal(Vec<i128>),
    Wide(Vec<i256>),
    Float(Vec<ExactSum>),
}

/// One call for all groups.
pub(super) struct Linear {
    kind: Kind,
    call: GroupCall,
    /// Of the sums.
    data_type: DataType,
    /// Arguments that are not null, by slot.
    counts: Vec<i64>,
    sums: Sums,
}

impl Linear {
    /// `None` if the call needs more than sums.
    pub fn of(call: &GroupCall, arguments: &[DataType]) -> Option<Self> {
        let sums = match arguments {
            [DataType::Int64 | DataType::UInt64 | DataType::Duration(_)] => Some(Sums::Int(Vec::new())),
            [DataType::Decimal128(..)] => Some(Sums::Decimal(Vec::new())),
            [DataType::Decimal256(..)] => Some(Sums::Wide(Vec::new())),
            [DataType::Float64] => Some(Sums::Float(Vec::new())),
            _ => None,
        };
        let (kind, sums) = match (call.function.fun().name(), sums) {
            ("count", _) => (Kind::Count, Sums::None),
            ("sum", Some(sums)) => (Kind::Sum, sums),
            ("avg", Some(sums)) if !matches!(sums, Sums::Int(_)) => (Kind::Avg, sums),
            _ => return None,
        };
        let data_type = arguments.first().cloned().unwrap_or(DataType::Null);
        Some(Self { kind, call: call.clone(), data_type, counts: Vec::new(), sums })
    }

    pub fn grow(&mut self, slots: usize) {
        self.counts.resize(slots, 0);
        match &mut self.sums {
            Sums::None => {}
            Sums::Int(sums) => sums.resize(slots, 0),
            Sums::Decimal(sums) => sums.resize(slots, 0),
            Sums::Wide(sums) => sums.resize(slots, i256::ZERO),
            Sums::Float(sums) => sums.resize(slots, ExactSum::default()),
        }
    }

    /// Adds rows to their groups, as often as their weights say.
    pub fn add(
        &mut self,
        slots: &[u32],
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
        weight: impl Fn(usize) -> i64,
    ) {
        let passes = |row: usize| filter.is_none_or(|f| f.is_valid(row) && f.value(row));
        let there = |row: &usize| passes(*row) && arguments.iter().all(|a| a.is_valid(*row));
        let Some(argument) = arguments.first() else { return };
        for row in (0..slots.len()).filter(there) {
            self.counts[slots[row] as usize] += weight(row);
        }
        let rows = (0..slots.len()).filter(there);
        match &mut self.sums {
            Sums::None => {}
            Sums::Int(sums) => {
                let values = bits(argument);
                rows.for_each(|r| {
                    let sum = &mut sums[slots[r] as usize];
                    *sum = sum.wrapping_add(values.value(r).wrapping_mul(weight(r)));
                });
            }
            Sums::Decimal(sums) => {
                let values = argument.as_primitive::<Decimal128Type>();
                rows.for_each(|r| {
                    let sum = &mut sums[slots[r] as usize];
                    *sum = sum.wrapping_add(values.value(r).wrapping_mul(i128::from(weight(r))));
                });
            }
            Sums::Wide(sums) => {
                let values = argument.as_primitive::<Decimal256Type>();
                rows.for_each(|r| {
                    let sum = &mut sums[slots[r] as usize];
                    *sum = sum.wrapping_add(values.value(r).wrapping_mul(i256::from(weight(r))));
                });
            }
            Sums::Float(sums) => {
                let values = argument.as_primitive::<Float64Type>();
                rows.for_each(|r| sums[slots[r] as usize].add(values.value(r), weight(r)));
            }
        }
    }

    /// The results of these groups. Their sums are normalised from now on.
    pub fn results(&mut self, slots: &[u32]) -> Result<ArrayRef> {
        if let Sums::Float(sums) = &mut self.sums {
            slots.iter().for_each(|s| sums[*s as usize].normalise());
        }
        let count = |s: &u32| self.counts[*s as usize];
        match self.kind {
            Kind::Count => Ok(Arc::new(Int64Array::from_iter_values(slots.iter().map(count)))),
            Kind::Sum => self.sum(slots),
            Kind::Avg => {
                // No count is null in DataFusion's state.
                let counts = slots.iter().map(|s| Some(count(s) as u64).filter(|c| *c > 0));
                let counts: ArrayRef = Arc::new(counts.collect::<UInt64Array>());
                let mut average = Accumulators::new(std::iter::once(&self.call))?;
                let groups: Vec<usize> = (0..slots.len()).collect();
                average.merge(&[counts, self.sum(slots)?], |_| true, &groups, slots.len())?;
                let one = average.take_results(slots.len())?.pop();
                one.ok_or_else(|| DataFusionError::Internal("an average without a result".to_owned()))
            }
        }
    }

    /// Null where there was no argument.
    fn sum(&self, slots: &[u32]) -> Result<ArrayRef> {
        let there = |s: &u32| self.counts[*s as usize] > 0;
        Ok(match &self.sums {
            Sums::None => return Err(DataFusionError::Internal("a sum of nothing".to_owned())),
            Sums::Int(sums) => {
                let values: Int64Array = slots.iter().map(|s| there(s).then(|| sums[*s as usize])).collect();
                of_bits(values, &self.data_type)
            }
            Sums::Decimal(sums) => {
                let values: Decimal128Array = slots.iter().map(|s| there(s).then(|| sums[*s as usize])).collect();
                let DataType::Decimal128(precision, scale) = self.data_type else { return Ok(Arc::new(values)) };
                Arc::new(values.with_precision_and_scale(self.precision(precision), scale)?)
            }
            Sums::Wide(sums) => {
                let values: Decimal256Array = slots.iter().map(|s| there(s).then(|| sums[*s as usize])).collect();
                let DataType::Decimal256(precision, scale) = self.data_type else { return Ok(Arc::new(values)) };
                Arc::new(values.with_precision_and_scale(self.precision(precision), scale)?)
            }
            Sums::Float(sums) => {
                Arc::new(slots.iter().map(|s| there(s).then(|| sums[*s as usize].value())).collect::<Float64Array>())
            }
        })
    }

    /// A sum's type may have more digits than its argument's.
    fn precision(&self, argument: u8) -> u8 {
        match (self.kind, self.call.function.field().data_type()) {
            (Kind::Sum, DataType::Decimal128(precision, _) | DataType::Decimal256(precision, _)) => *precision,
            _ => argument,
        }
    }

    /// True if the group has nothing counted or summed.
    pub fn is_zero(&self, slot: u32) -> bool {
        let slot = slot as usize;
        let sum = match &self.sums {
            Sums::None => true,
            Sums::Int(sums) => sums[slot] == 0,
            Sums::Decimal(sums) => sums[slot] == 0,
            Sums::Wide(sums) => sums[slot] == i256::ZERO,
            Sums::Float(sums) => sums[slot].is_zero(),
        };
        sum && self.counts[slot] == 0
    }

    /// Nothing is counted or summed any more.
    pub fn clear(&mut self, slot: u32) {
        let slot = slot as usize;
        self.counts[slot] = 0;
        match &mut self.sums {
            Sums::None => {}
            Sums::Int(sums) => sums[slot] = 0,
            Sums::Decimal(sums) => sums[slot] = 0,
            Sums::Wide(sums) => sums[slot] = i256::ZERO,
            Sums::Float(sums) => sums[slot] = ExactSum::default(),
        }
    }

    /// Appends the group's count and sum, which must be normalised.
    pub fn save(&self, slot: u32, out: &mut Vec<u8>) {
        let slot = slot as usize;
        out.extend(self.counts[slot].to_le_bytes());
        match &self.sums {
            Sums::None => {}
            Sums::Int(sums) => out.extend(sums[slot].to_le_bytes()),
            Sums::Decimal(sums) => out.extend(sums[slot].to_le_bytes()),
            Sums::Wide(sums) => out.extend(sums[slot].to_le_bytes()),
            Sums::Float(sums) => sums[slot].save(out),
        }
    }

    /// Takes what [`save`](Self::save) wrote from the front of `bytes`.
    pub fn load(&mut self, slot: u32, bytes: &mut &[u8]) -> Option<()> {
        let slot = slot as usize;
        self.counts[slot] = take_i64(bytes)?;
        match &mut self.sums {
            Sums::None => {}
            Sums::Int(sums) => sums[slot] = take_i64(bytes)?,
            Sums::Decimal(sums) => sums[slot] = i128::from_le_bytes(take(bytes)?),
            Sums::Wide(sums) => sums[slot] = i256::from_le_bytes(take(bytes)?),
            Sums::Float(sums) => sums[slot] = ExactSum::load(bytes)?,
        }
        Some(())
    }

    pub fn bytes(&self) -> usize {
        let sums = match &self.sums {
            Sums::None => 0,
            Sums::Int(sums) => sums.capacity() * 8,
            Sums::Decimal(sums) => sums.capacity() * 16,
            Sums::Wide(sums) => sums.capacity() * 32,
            // Sums of numbers of one size are some limbs long.
            Sums::Float(sums) => sums.capacity() * (size_of::<ExactSum>() + 48),
        };
        self.counts.capacity() * 8 + sums
    }
}

/// 64-bit values by their bits.
fn bits(array: &ArrayRef) -> Int64Array {
    match array.data_type() {
        DataType::UInt64 => array.as_primitive::<UInt64Type>().unary(|v| v as i64),
        DataType::Duration(TimeUnit::Second) => array.as_primitive::<DurationSecondType>().reinterpret_cast(),
        DataType::Duration(TimeUnit::Millisecond) => array.as_primitive::<DurationMillisecondType>().reinterpret_cast(),
        DataType::Duration(TimeUnit::Microsecond) => array.as_primitive::<DurationMicrosecondType>().reinterpret_cast(),
        DataType::Duration(TimeUnit::Nanosecond) => array.as_primitive::<DurationNanosecondType>().reinterpret_cast(),
        _ => array.as_primitive::<Int64Type>().clone(),
    }
}

fn of_bits(values: Int64Array, data_type: &DataType) -> ArrayRef {
    match data_type {
        DataType::UInt64 => Arc::new(values.unary::<_, UInt64Type>(|v| v as u64)),
        DataType::Duration(TimeUnit::Second) => Arc::new(values.reinterpret_cast::<DurationSecondType>()),
        DataType::Duration(TimeUnit::Millisecond) => Arc::new(values.reinterpret_cast::<DurationMillisecondType>()),
        DataType::Duration(TimeUnit::Microsecond) => Arc::new(values.reinterpret_cast::<DurationMicrosecondType>()),
        DataType::Duration(TimeUnit::Nanosecond) => Arc::new(values.reinterpret_cast::<DurationNanosecondType>()),
        _ => Arc::new(values),
    }
}
