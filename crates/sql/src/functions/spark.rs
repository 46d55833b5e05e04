//! Spark's functions of the crate datafusion-spark, with integers of any width: a number that is written in a query is a BIGINT here and an INT
//! in Spark, and several of them take only the latter.
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

pub(super) fn any_integer(inner: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(inner.signature().volatility);
    Arc::new(ScalarUDF::new_from_impl(AnyInteger { inner, signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AnyInteger {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for AnyInteger {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let coerced = |types: &[DataType]| {
            let fields: Vec<FieldRef> = types.iter().map(|t| Arc::new(Field::new("", t.clone(), true))).collect();
            let fields = fields_with_udf(&fields, self.inner.as_ref())?;
            Ok(fields.iter().map(|f| f.data_type().clone()).collect())
        };
        coerced(types).or_else(|error| {
            let int = |t: &DataType| if *t == DataType::Int64 { DataType::Int32 } else { t.clone() };
            let narrow: Vec<DataType> = types.iter().map(int).collect();
            if narrow == types { Err(error) } else { coerced(&narrow).map_err(|_| error) }
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }
}
