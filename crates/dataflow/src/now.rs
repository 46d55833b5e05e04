//! `now()` of a stream: the plan's time, the same for every row of an epoch and the same again in a replay.
//!
//! DataFusion folds `now()` into the plan when it plans, which is right for a batch and wrong for a stream. The functions here are
//! volatile, so they are never folded, and read the time that the running task set for its epoch on its own thread.
use std::cell::Cell;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

thread_local! {
    static NOW_MS: Cell<i64> = const { Cell::new(0) };
}

/// Sets the time that `now()` has on this thread, in milliseconds since 1970 UTC.
pub fn set(now_ms: i64) {
    NOW_MS.set(now_ms);
}

/// The time that was [`set`] on this thread.
#[must_use]
pub fn get() -> i64 {
    NOW_MS.get()
}

/// The function `name()` without arguments that returns the plan's time as `TIMESTAMP(3)`.
#[must_use]
pub fn function(name: &'static str, aliases: &[&str]) -> ScalarUDF {
    ScalarUDF::new_from_impl(PlanTime {
        name,
        aliases: aliases.iter().map(|a| (*a).to_owned()).collect(),
        signature: Signature::nullary(Volatility::Volatile),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PlanTime {
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
}

impl ScalarUDFImpl for PlanTime {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Millisecond, None))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::TimestampMillisecond(Some(get()), None)))
    }
}
