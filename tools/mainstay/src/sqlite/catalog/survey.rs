//! What a statement names, to know whether it is a query of the catalogs, and whether it is small enough to be one.

use std::ops::ControlFlow;

use mainstay::server::pg::PgType;
use mainstay::server::pg::catalog::Relation;
use sqlparser::ast::{Expr, ObjectName, Select, TableFactor, VisitorMut};

use super::rewrite::{cast_type, function_name, input_function, names, relation};
use super::{functions, set_returning, table_functions};

/// Deeper expressions are not rewritten, nor more SELECTs: each level takes stack, the more so the larger it becomes.
const DEPTH_LIMIT: usize = 128;
/// See [`DEPTH_LIMIT`].
const SELECT_LIMIT: usize = 128;

/// What a statement names.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) relations: Vec<&'static Relation>,
    /// Names of relations that are none of the catalogs'.
    pub(super) strangers: Vec<String>,
    /// Calls of functions that are the catalogs', and what becomes one.
    pub(super) functions: usize,
    /// Functions of ours in FROM.
    pub(super) tables: usize,
    /// What is visited next is the name of such a function.
    at_function: bool,
    pub(super) asks_schema: bool,
    depth: usize,
    selects: usize,
}

/// Goes on if something is within its limit.
fn within(number: usize, limit: usize) -> ControlFlow<()> {
    if number <= limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

impl VisitorMut for Survey {
    type Break = ();

    fn pre_visit_select(&mut self, _: &mut Select) -> ControlFlow<()> {
        self.selects += 1;
        within(self.selects, SELECT_LIMIT)
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let is_known = table_functions::is_known(factor);
        self.tables += usize::from(is_known);
        self.at_function = is_known && matches!(factor, TableFactor::Table { .. });
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<()> {
        if std::mem::take(&mut self.at_function) {
            return ControlFlow::Continue(());
        }
        match relation(name) {
            Some(relation) if !self.relations.iter().any(|known| std::ptr::eq(*known, relation)) => {
                self.relations.push(relation);
            }
            Some(_) => {}
            None => self.strangers.extend(names(name).last().map(|name| (*name).to_owned())),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        match expression {
            Expr::Function(function) => {
                let name = function_name(&function.name).unwrap_or_default();
                let known = functions::find(&name);
                self.functions += usize::from(known.is_some() || set_returning::is_known(&name));
                self.asks_schema |= known.is_some_and(|known| known.asks_schema);
            }
            Expr::Cast { data_type, .. } => {
                let pg_type = cast_type(data_type);
                self.functions += usize::from(pg_type.and_then(input_function).is_some());
                self.asks_schema |= pg_type == Some(PgType::REGCLASS);
            }
            Expr::Interval(_) => self.functions += 1,
            _ => {}
        }
        self.depth += 1;
        within(self.depth, DEPTH_LIMIT)
    }
}
