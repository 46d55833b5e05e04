//! `CURRENT_DATE` of a stream: the date of the plan's time, in UTC.
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use millstream_dataflow::now;

const DAY_MS: i64 = 86_400_000;

pub(super) fn function(name: &'static str) -> ScalarUDF {
    ScalarUDF::new_from_impl(Today { name, signature: Signature::nullary(Volatility::Volatile) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Today {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Today {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Date32)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let days = i32::try_from(now::get().div_euclid(DAY_MS)).ok();
        Ok(ColumnarValue::Scalar(ScalarValue::Date32(days)))
    }
}
