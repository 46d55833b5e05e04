//! Functions of a pipeline: DataFusion's, without those that a stream cannot have, with the names that Flink and Spark
//! users expect.
mod dates;
mod text;
mod today;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, WindowUDF};
use millstream_dataflow::now;

use crate::versions;

/// Functions that give the plan's time: a column that is one of them follows processing time.
const PLAN_TIME: [&str; 5] = ["now", "current_timestamp", "localtimestamp", "current_row_timestamp", "proctime"];

/// Functions by name.
pub(crate) struct Functions {
    scalar: BTreeMap<String, Arc<ScalarUDF>>,
    higher_order: BTreeMap<String, Arc<HigherOrderUDF>>,
    aggregate: BTreeMap<String, Arc<AggregateUDF>>,
    window: BTreeMap<String, Arc<WindowUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl Functions {
    pub fn new() -> Self {
        let mut functions = Self {
            scalar: BTreeMap::new(),
            higher_order: BTreeMap::new(),
            aggregate: BTreeMap::new(),
            window: BTreeMap::new(),
            planners: SessionStateDefaults::default_expr_planners(),
        };
        for f in SessionStateDefaults::default_scalar_functions() {
            functions.add(f);
        }
        for f in SessionStateDefaults::default_higher_order_functions() {
            functions.higher_order.insert(f.name().to_owned(), f);
        }
        for f in SessionStateDefaults::default_aggregate_functions() {
            for name in f.aliases().iter().cloned().chain([f.name().to_owned()]) {
                functions.aggregate.insert(name, f.clone());
            }
        }
        for f in SessionStateDefaults::default_window_functions() {
            functions.window.insert(f.name().to_owned(), f);
        }
        // These replace DataFusion's of the same name, which are folded when a query is planned.
        for name in PLAN_TIME {
            functions.add(Arc::new(now::function(name, &[])));
        }
        for name in ["current_date", "today"] {
            functions.add(Arc::new(today::function(name)));
        }
        functions.add(Arc::new(text::split_index()));
        functions.add(Arc::new(text::regexp_extract()));
        functions.add(Arc::new(dates::date_format()));
        functions
    }

    fn add(&mut self, f: Arc<ScalarUDF>) {
        for name in f.aliases().iter().cloned().chain([f.name().to_owned()]) {
            self.scalar.insert(name, f.clone());
        }
    }

    pub fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        if name == versions::AS_OF {
            return Some(Arc::new(versions::function()));
        }
        self.scalar.get(name).cloned()
    }

    pub fn higher_order(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.higher_order.get(name).cloned()
    }

    pub fn aggregate(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregate.get(name).cloned()
    }

    pub fn window(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.window.get(name).cloned()
    }

    pub fn planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    pub fn scalar_names(&self) -> Vec<String> {
        self.scalar.keys().cloned().collect()
    }

    pub fn higher_order_names(&self) -> Vec<String> {
        self.higher_order.keys().cloned().collect()
    }

    pub fn aggregate_names(&self) -> Vec<String> {
        self.aggregate.keys().cloned().collect()
    }

    pub fn window_names(&self) -> Vec<String> {
        self.window.keys().cloned().collect()
    }
}

/// True for `PROCTIME()`, `now()` and their like, whatever the alias.
pub(crate) fn is_plan_time(expr: &Expr) -> bool {
    matches!(expr.clone().unalias_nested().data, Expr::ScalarFunction(f) if PLAN_TIME.contains(&f.name()))
}
