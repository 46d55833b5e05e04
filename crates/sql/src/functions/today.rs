//! The plan's time in the pipeline's zone: `CURRENT_TIMESTAMP`, `LOCALTIMESTAMP`, `CURRENT_DATE`, `UNIX_TIMESTAMP()`.
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use millstream_dataflow::now;

use super::zone::Zone;

const DAY_MS: i64 = 86_400_000;

/// What is told of the plan's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Told {
    Instant,
    LocalTime,
    LocalDate,
    Seconds,
}

/// The function `name()`. Volatile: it is never folded into the plan.
pub(super) fn function(name: &'static str, told: Told, zone: &Zone) -> Arc<ScalarUDF> {
    let signature = Signature::nullary(Volatility::Volatile);
    Arc::new(ScalarUDF::new_from_impl(PlanTime { name, told, zone: zone.clone(), signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PlanTime {
    name: &'static str,
    told: Told,
    zone: Zone,
    signature: Signature,
}

impl ScalarUDFImpl for PlanTime {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.told {
            Told::Instant => self.zone.instants(TimeUnit::Millisecond),
            Told::LocalTime => DataType::Timestamp(TimeUnit::Millisecond, None),
            Told::LocalDate => DataType::Date32,
            Told::Seconds => DataType::Int64,
        })
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let now = now::get();
        let local = || self.zone.clock().local(now.saturating_mul(1000)).div_euclid(1000);
        Ok(ColumnarValue::Scalar(match self.told {
            Told::Instant => ScalarValue::TimestampMillisecond(Some(now), Some(self.zone.name().clone())),
            Told::LocalTime => ScalarValue::TimestampMillisecond(Some(local()), None),
            Told::LocalDate => ScalarValue::Date32(i32::try_from(local().div_euclid(DAY_MS)).ok()),
            Told::Seconds => ScalarValue::Int64(Some(now.div_euclid(1000))),
        }))
    }
}
