//! Functions over any values, and `LOG`: where Flink and Spark agree and DataFusion's function of that name is another one.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int32Array, cast::AsArray};
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{plan_err, utils::take_function_args};
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::core;
use datafusion::functions_nested::{extract, map_extract, position};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, lit,
};

use super::plain::{Call, Kind, Plain, at};
use super::zone::Zone;
use Kind::Number;

pub(super) fn common(zone: &Zone) -> Vec<Arc<ScalarUDF>> {
    let signature = Signature::any(2, Volatility::Immutable);
    vec![
        Plain::new("log", &[&[Number], &[Number, Number]], |_, _| Ok(DataType::Float64), log).function(zone),
        Arc::new(ScalarUDF::new_from_impl(ElementAt { signature: Signature::user_defined(Volatility::Immutable) })),
        Arc::new(ScalarUDF::new_from_impl(ArrayPosition { signature })),
    ]
}

/// `GREATEST` and `LEAST` of which any null makes a null.
pub(super) fn flink() -> Vec<Arc<ScalarUDF>> {
    [core::greatest(), core::least()].map(|inner| Arc::new(ScalarUDF::new_from_impl(NullIfAny { inner }))).to_vec()
}

/// The natural logarithm, or that to the base of the first argument. Null where there is none, as in Spark.
fn log(call: &Call<'_>) -> Result<ArrayRef> {
    let first = call.numbers(0)?;
    let second = if call.count() > 1 { Some(call.numbers(1)?) } else { None };
    let positive = |v: f64| (v > 0.0 || v.is_nan()).then_some(v);
    let each = |row| {
        let first = positive(at(&first, row)?)?;
        match &second {
            None => Some(first.ln()),
            Some(second) => Some(positive(at(second, row)?)?.ln() / first.ln()),
        }
    };
    Ok(Arc::new((0..call.rows()).map(each).collect::<Float64Array>()))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct NullIfAny {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for NullIfAny {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let given = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let found = self.inner.invoke_with_args(args)?.into_array(rows)?;
        let missing: BooleanArray = (0..rows).map(|row| Some(given.iter().any(|g| g.is_null(row)))).collect();
        Ok(ColumnarValue::Array(nullif(&found, &missing)?))
    }
}

/// `element_at(array, index)` from 1 or from the end, `element_at(map, key)`; null where there is none.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ElementAt {
    signature: Signature,
}

impl ElementAt {
    fn types(given: &DataType) -> Result<(DataType, DataType)> {
        match given {
            DataType::List(item) => Ok((DataType::Int64, item.data_type().clone())),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(kv) if kv.len() == 2 => Ok((kv[0].data_type().clone(), kv[1].data_type().clone())),
                _ => plan_err!("element_at: not a map"),
            },
            _ => plan_err!("element_at: takes an array and an index, or a map and a key"),
        }
    }
}

impl ScalarUDFImpl for ElementAt {
    fn name(&self) -> &str {
        "element_at"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first() {
            Some(given) => Ok(Self::types(given)?.1),
            None => plan_err!("element_at: takes two arguments"),
        }
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [given, _] => Ok(vec![given.clone(), Self::types(given)?.0]),
            _ => plan_err!("element_at: takes two arguments"),
        }
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal("element_at is written out when a query is planned".into()))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let [from, place] = take_function_args(self.name(), args)?;
        let call = |f: Arc<ScalarUDF>, args| Expr::ScalarFunction(ScalarFunction::new_udf(f, args));
        let element = match from.get_type(info.schema())? {
            DataType::Map(..) => {
                let found = call(map_extract::map_extract_udf(), vec![from, place]);
                call(extract::array_element_udf(), vec![found, lit(1_i64)])
            }
            _ => call(extract::array_element_udf(), vec![from, place]),
        };
        Ok(ExprSimplifyResult::Simplified(element))
    }
}

/// The place of a value in an array, from 1; 0 where it is not there.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayPosition {
    signature: Signature,
}

impl ArrayPosition {
    fn inner() -> Arc<ScalarUDF> {
        position::array_position_udf()
    }
}

impl ScalarUDFImpl for ArrayPosition {
    fn name(&self) -> &str {
        "array_position"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let item = match args.arg_fields[0].data_type() {
            DataType::List(item) => item.data_type().clone(),
            _ => return plan_err!("array_position: takes an array and a value"),
        };
        let value = args.arg_fields[1].data_type();
        if item != *value && *value != DataType::Null && !(item.is_numeric() && value.is_numeric()) {
            return plan_err!("array_position: the array holds {item}, the value is {value}");
        }
        Ok(Arc::new(arrow::datatypes::Field::new(self.name(), DataType::Int32, true)))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let given = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
        if let DataType::List(item) = given[0].data_type() {
            args.args[1] = ColumnarValue::Array(cast(&given[1], item.data_type())?);
        }
        let found = Self::inner().invoke_with_args(args)?.into_array(rows)?;
        let found = cast(&found, &DataType::Int64)?;
        let found = found.as_primitive::<Int64Type>();
        let place = |row| {
            let known = given.iter().all(|g| g.is_valid(row));
            known.then(|| at(found, row).and_then(|p| i32::try_from(p).ok()).unwrap_or(0))
        };
        Ok(ColumnarValue::Array(Arc::new((0..rows).map(place).collect::<Int32Array>())))
    }
}
