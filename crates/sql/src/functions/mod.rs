//! Functions of a pipeline: those of Flink, Spark and DataFusion together, without those that a stream cannot have.
//!
//! A name may mean different functions in the three. The setting `sql.dialect` says whose comes first; those of the others stay known by names
//! that the first does not have. Functions that are the same everywhere, or that only this engine has, come before all.
//!
//! - `plain`: scalar functions as tables of argument types and bodies over columns. `dates`, `units`, `text`, `regex`, `values`, `json` are such.
//! - `forms`: calls that are no functions of their own but are written out before planning. `today`: the plan's time.
//! - `zone`, `pattern`: time zones, and Java's patterns of dates. `page`: the reference page.
//!
//! Nothing here depends on anything but its arguments, the plan's time, and the two settings.
mod dates;
pub(crate) mod forms;
mod json;
mod page;
mod pattern;
mod plain;
mod planner;
mod regex;
mod spark;
mod text;
mod today;
mod units;
mod values;
pub(crate) mod zone;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, Volatility, WindowUDF};
use datafusion_spark::function as spark_crate;
use millstream_dataflow::now;

pub use page::functions_page;
use planner::DialectPlanner;
use today::Told;
use zone::Zone;

use crate::versions;

/// Functions that give the plan's time: a column that is one of them follows processing time.
const PLAN_TIME: [&str; 5] = ["now", "current_timestamp", "localtimestamp", "current_row_timestamp", "proctime"];

/// DataFusion's functions under names of our own, for what is written out as calls of them in every dialect.
pub(crate) const DATE_PART: &str = "__date_part";
pub(crate) const TRUNC: &str = "__trunc";
pub(crate) const UNIX_NOW: &str = "__unix_now";

/// Whose functions come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Dialect {
    Flink,
    Spark,
    DataFusion,
}

impl Dialect {
    pub const NAMES: &'static [&'static str] = &["flink", "spark", "datafusion"];

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "flink" => Some(Self::Flink),
            "spark" => Some(Self::Spark),
            "datafusion" => Some(Self::DataFusion),
            _ => None,
        }
    }
}

/// Where a function comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Ours, the same in every dialect.
    Millstream,
    /// As both Flink and Spark define it.
    Both,
    /// As Flink defines it.
    Flink,
    /// As Spark defines it.
    Spark,
    /// Spark's in the crate datafusion-spark.
    SparkCrate,
    DataFusion,
}

type Named = (String, Arc<ScalarUDF>);

/// Functions by name.
pub(crate) struct Functions {
    scalar: BTreeMap<String, (Origin, Arc<ScalarUDF>)>,
    higher_order: BTreeMap<String, Arc<HigherOrderUDF>>,
    aggregate: BTreeMap<String, (Origin, Arc<AggregateUDF>)>,
    window: BTreeMap<String, Arc<WindowUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl Functions {
    pub fn new(dialect: Dialect, zone: &Zone) -> Self {
        use Origin::{Both, DataFusion, Flink, Millstream, Spark, SparkCrate};
        // The last one wins.
        let order = match dialect {
            Dialect::Flink => [SparkCrate, Spark, DataFusion, Both, Flink, Millstream],
            Dialect::Spark => [Flink, DataFusion, SparkCrate, Both, Spark, Millstream],
            Dialect::DataFusion => [SparkCrate, Spark, Both, Flink, DataFusion, Millstream],
        };
        let mut scalar = BTreeMap::new();
        for origin in order {
            scalar.extend(scalars(origin, zone).into_iter().map(|(name, f)| (name, (origin, f))));
        }
        let mut aggregate = BTreeMap::new();
        let spark = (SparkCrate, vec![spark_crate::aggregate::try_sum()]);
        for (origin, functions) in [spark, (DataFusion, SessionStateDefaults::default_aggregate_functions())] {
            for f in functions {
                for name in f.aliases().iter().cloned().chain([f.name().to_owned()]) {
                    aggregate.insert(name, (origin, f.clone()));
                }
            }
        }
        let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(DialectPlanner(dialect))];
        planners.extend(SessionStateDefaults::default_expr_planners());
        let named = |f: Arc<HigherOrderUDF>| (f.name().to_owned(), f);
        let windows = SessionStateDefaults::default_window_functions().into_iter();
        Self {
            scalar,
            higher_order: SessionStateDefaults::default_higher_order_functions().into_iter().map(named).collect(),
            aggregate,
            window: windows.map(|f| (f.name().to_owned(), f)).collect(),
            planners,
        }
    }

    pub fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        if name == versions::AS_OF {
            return Some(Arc::new(versions::function()));
        }
        self.scalar.get(name).map(|(_, f)| f.clone())
    }

    pub fn higher_order(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.higher_order.get(name).cloned()
    }

    pub fn aggregate(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregate.get(name).map(|(_, f)| f.clone())
    }

    pub fn window(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.window.get(name).cloned()
    }

    pub fn planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    pub fn scalar_names(&self) -> Vec<String> {
        self.scalar.keys().filter(|n| !n.starts_with("__")).cloned().collect()
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

/// The scalar functions of one origin under all their names.
fn scalars(origin: Origin, zone: &Zone) -> Vec<Named> {
    let by_name = |f: Arc<ScalarUDF>| {
        let names: Vec<String> = f.aliases().iter().cloned().chain([f.name().to_owned()]).collect();
        names.into_iter().map(move |name| (name, f.clone()))
    };
    let under = |name: &str, f: Arc<ScalarUDF>| (name.to_owned(), f);
    match origin {
        Origin::Millstream => {
            let mut named = plan_times(zone);
            named.extend(json::functions(zone).into_iter().flat_map(by_name));
            let own = [text::common(zone), units::common(zone)];
            named.extend(own.into_iter().flatten().flat_map(by_name));
            named.push(under(DATE_PART, datafusion::functions::datetime::date_part()));
            named.push(under(TRUNC, datafusion::functions::math::trunc()));
            named
        }
        Origin::Both => {
            let shared = [dates::common(zone), regex::common(zone), values::common(zone)];
            let mut named: Vec<Named> = shared.into_iter().flatten().flat_map(by_name).collect();
            // A bad URL gives null: no record can stop a pipeline.
            named.push(under("parse_url", spark_crate::url::try_parse_url()));
            named.push(under("chr", spark_crate::string::char()));
            // Null if any argument is.
            named.push(under("concat", spark_crate::string::concat()));
            named.push(under("substring", spark_crate::string::substring()));
            named.push(under("substr", spark_crate::string::substring()));
            named
        }
        Origin::Flink => {
            let own = [dates::flink(zone), regex::flink(zone), text::flink(zone), units::flink(zone), values::flink()]
                .concat();
            let mut named: Vec<Named> = own.into_iter().flat_map(by_name).collect();
            named.push(under("url_decode", spark_crate::url::try_url_decode()));
            named
        }
        Origin::Spark => {
            let own = [dates::spark(zone), regex::spark(zone), units::spark(zone)].concat();
            own.into_iter().flat_map(by_name).collect()
        }
        Origin::SparkCrate => {
            let all = datafusion_spark::all_default_scalar_functions().into_iter();
            let kept = all.filter(|f| !LEFT_OUT.contains(&f.name()) && is_repeatable(f));
            kept.map(spark::any_integer).flat_map(by_name).collect()
        }
        Origin::DataFusion => {
            let all = SessionStateDefaults::default_scalar_functions().into_iter();
            all.filter(|f| is_repeatable(f) && !OUTSIDE.contains(&f.name())).flat_map(by_name).collect()
        }
    }
}

/// Spark's functions that are syntax here.
const LEFT_OUT: [&str; 5] = ["if", "like", "ilike", "mod", "spark_cast"];

/// DataFusion's functions of something outside the plan: the clock, which is folded into it, and DataFusion's version.
const OUTSIDE: [&str; 4] = ["now", "current_date", "current_time", "version"];

/// Functions that may give another value when they are called again have no place in a stream. `refuse` names them to the user.
fn is_repeatable(f: &ScalarUDF) -> bool {
    f.signature().volatility != Volatility::Volatile
}

/// The plan's time, in place of DataFusion's functions of these names, which are folded when a query is planned.
fn plan_times(zone: &Zone) -> Vec<Named> {
    let own = |name: &'static str, told| (name.to_owned(), today::function(name, told, zone));
    // What a clock on the wall shows goes back once a year: outside UTC it is no time to make windows of.
    let local = if zone.is_utc() { "localtimestamp" } else { "local_timestamp" };
    vec![
        own("now", Told::Instant),
        own("current_timestamp", Told::Instant),
        own("current_row_timestamp", Told::Instant),
        ("localtimestamp".to_owned(), today::function(local, Told::LocalTime, zone)),
        own("current_date", Told::LocalDate),
        own("curdate", Told::LocalDate),
        own("today", Told::LocalDate),
        own(UNIX_NOW, Told::Seconds),
        ("proctime".to_owned(), Arc::new(now::function("proctime", &[]))),
    ]
}

#[cfg(test)]
mod literals;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refuse::is_refused;

    #[test]
    fn what_is_not_repeatable_is_refused_by_name_and_cannot_be_found() {
        let spark = datafusion_spark::all_default_scalar_functions();
        let all = spark.into_iter().chain(SessionStateDefaults::default_scalar_functions());
        let volatile: Vec<_> = all.filter(|f| f.signature().volatility == Volatility::Volatile).collect();
        assert!(volatile.len() >= 3);
        for dialect in [Dialect::Flink, Dialect::Spark, Dialect::DataFusion] {
            let functions = Functions::new(dialect, &Zone::utc());
            for f in &volatile {
                for name in f.aliases().iter().map(String::as_str).chain([f.name()]) {
                    assert!(is_refused(name), "{name} is volatile and not refused");
                    assert!(functions.scalar(name).is_none(), "{name} is volatile and known");
                }
            }
            let windows = functions.window.values().map(|f| (f.name().to_owned(), f.signature().volatility));
            let aggregates = functions.aggregate.values().map(|(_, f)| (f.name().to_owned(), f.signature().volatility));
            for (name, volatility) in windows.chain(aggregates) {
                assert!(volatility != Volatility::Volatile, "{name}");
            }
        }
        for name in ["rand", "randn", "uuid", "shuffle", "input_file_name"] {
            assert!(is_refused(name), "{name}");
        }
    }

    #[test]
    fn what_is_folded_at_planning_depends_on_nothing_outside() {
        for dialect in [Dialect::Flink, Dialect::Spark, Dialect::DataFusion] {
            let functions = Functions::new(dialect, &Zone::utc());
            let stable = functions.scalar.iter().filter(|(_, (_, f))| f.signature().volatility == Volatility::Stable);
            let names: Vec<&str> = stable.map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, Vec::<&str>::new(), "{dialect:?}: fixed by what?");
            assert!(functions.scalar("current_time").is_none() && functions.scalar("version").is_none());
        }
    }

    #[test]
    fn the_dialect_decides() {
        let origin = |dialect, name: &str| Functions::new(dialect, &Zone::utc()).scalar.get(name).map(|(o, _)| *o);
        for (name, flink, spark, datafusion) in [
            ("concat", Origin::Both, Origin::Both, Origin::DataFusion),
            ("date_format", Origin::Both, Origin::Both, Origin::DataFusion),
            ("regexp_extract", Origin::Flink, Origin::Spark, Origin::Flink),
            ("to_timestamp", Origin::Flink, Origin::Spark, Origin::DataFusion),
            ("trunc", Origin::DataFusion, Origin::SparkCrate, Origin::DataFusion),
            ("date_add", Origin::SparkCrate, Origin::SparkCrate, Origin::SparkCrate),
            ("greatest", Origin::Flink, Origin::DataFusion, Origin::DataFusion),
            ("now", Origin::Millstream, Origin::Millstream, Origin::Millstream),
            ("json_value", Origin::Millstream, Origin::Millstream, Origin::Millstream),
            ("upper", Origin::DataFusion, Origin::DataFusion, Origin::DataFusion),
        ] {
            let found = [Dialect::Flink, Dialect::Spark, Dialect::DataFusion].map(|d| origin(d, name));
            assert_eq!(found, [flink, spark, datafusion].map(Some), "{name}");
        }
    }
}
