//! The types of parameters, by what they stand beside.
//!
//! A parameter takes the type of what it is compared, counted or chosen with, or of the column that it is stored in, as it
//! would in PostgreSQL. What is not understood says nothing.
//!
//! Statements and queries are gone through here, their expressions in `expressions`.

use mainstay::server::pg::PgType;
use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, GroupByExpr, Insert, JoinConstraint, JoinOperator,
    LimitClause, OnConflictAction, OnInsert, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, Statement,
    TableFactor, TableObject, TableWithJoins, Update, UpdateTableFromKind,
};

use super::expressions::{body_columns, item_columns, target_of};
use super::scope::{CLAUSE_LIMIT, FromClause, Relation, Scope, last_name};

mod expressions;

/// What a parameter's places say of its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) enum Found {
    Nothing,
    Type(PgType),
    /// More than one that have nothing in common.
    Several,
}

impl Found {
    /// One more place. Of types that are much alike the first counts, as in PostgreSQL.
    pub(in super::super) fn note(&mut self, pg_type: PgType) {
        *self = match *self {
            Found::Nothing => Found::Type(pg_type),
            Found::Type(first) if first == pg_type || kind(first).is_some_and(|own| Some(own) == kind(pg_type)) => {
                Found::Type(first)
            }
            Found::Type(_) | Found::Several => Found::Several,
        };
    }
}

#[derive(PartialEq)]
enum Kind {
    Number,
    Text,
}

fn kind(pg_type: PgType) -> Option<Kind> {
    match pg_type {
        PgType::INT2 | PgType::INT4 | PgType::INT8 | PgType::FLOAT4 | PgType::FLOAT8 | PgType::NUMERIC => {
            Some(Kind::Number)
        }
        PgType::TEXT | PgType::VARCHAR => Some(Kind::Text),
        _ => None,
    }
}

/// What is said of each of the parameters `$1` to `$count`.
pub(super) fn found(statement: &Statement, scope: &Scope<'_>, count: usize) -> Vec<Found> {
    let mut walk = Walk { found: vec![Found::Nothing; count] };
    walk.statement(statement, scope);
    walk.found
}

/// On its way through a statement, in the order in which PostgreSQL looks at one.
struct Walk {
    found: Vec<Found>,
}

impl Walk {
    fn statement(&mut self, statement: &Statement, scope: &Scope<'_>) {
        match statement {
            Statement::Query(query) => self.query(query, scope, &[]),
            Statement::Insert(insert) => self.insert(insert, scope),
            Statement::Update(update) => self.update(update, scope),
            Statement::Delete(delete) => self.delete(delete, scope),
            Statement::Explain { statement, .. } => self.statement(statement, scope),
            _ => {}
        }
    }

    fn insert(&mut self, insert: &Insert, scope: &Scope<'_>) {
        let TableObject::TableName(name) = &insert.table else { return };
        let Some(table) = last_name(name).and_then(|name| scope.table(name)) else { return };
        let stored: Vec<Option<PgType>> = match insert.columns.as_slice() {
            [] => table.columns.iter().filter(|column| !column.is_generated).map(|column| column.pg_type).collect(),
            columns => columns.iter().map(|name| table.column(&last_name(name)?).flatten()).collect(),
        };
        if let Some(source) = &insert.source {
            self.query(source, scope, &stored);
        }
        let alias = insert.table_alias.as_ref().map(|alias| alias.alias.value.clone());
        let excluded = table.clone().aliased(Some("excluded".to_owned()));
        let target = table.aliased(alias);
        if let Some(OnInsert::OnConflict(conflict)) = &insert.on
            && let OnConflictAction::DoUpdate(update) = &conflict.action
        {
            let from = FromClause::of(vec![target.clone(), excluded]);
            let within = scope.within(&from);
            self.assignments(&update.assignments, &target, &within);
            self.condition(update.selection.as_ref(), &within);
        }
        self.returning(insert.returning.as_deref(), target, scope);
    }

    fn update(&mut self, update: &Update, scope: &Scope<'_>) {
        let Some(target) = target_of(&update.table, scope) else { return };
        let others = match &update.from {
            Some(UpdateTableFromKind::BeforeSet(tables) | UpdateTableFromKind::AfterSet(tables)) => tables.as_slice(),
            None => &[],
        };
        let tables: Vec<TableWithJoins> = std::iter::once(&update.table).chain(others).cloned().collect();
        let from = scope.from(&tables);
        let within = scope.within(&from);
        tables.iter().for_each(|table| self.joined(table, scope, &within));
        self.assignments(&update.assignments, &target, &within);
        self.condition(update.selection.as_ref(), &within);
        self.count(update.limit.as_ref(), scope);
        self.returning(update.returning.as_deref(), target, scope);
    }

    fn delete(&mut self, delete: &Delete, scope: &Scope<'_>) {
        let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
        let from = scope.from(tables);
        self.condition(delete.selection.as_ref(), &scope.within(&from));
        self.count(delete.limit.as_ref(), scope);
        if let Some(target) = tables.first().and_then(|table| target_of(table, scope)) {
            self.returning(delete.returning.as_deref(), target, scope);
        }
    }

    fn assignments(&mut self, assignments: &[Assignment], target: &Relation, scope: &Scope<'_>) {
        for Assignment { target: assigned, value } in assignments {
            let type_of_column = |name| target.column(&last_name(name)?).flatten();
            match assigned {
                AssignmentTarget::ColumnName(name) => self.stored(value, type_of_column(name), scope),
                AssignmentTarget::Tuple(names) => {
                    let types: Vec<_> = names.iter().map(type_of_column).collect();
                    self.row_stored(value, &types, scope);
                }
            }
        }
    }

    fn returning(&mut self, items: Option<&[SelectItem]>, target: Relation, scope: &Scope<'_>) {
        let from = FromClause::of(vec![target]);
        self.items(items.unwrap_or_default(), &scope.within(&from), &[]);
    }

    /// A query whose columns are stored as, or compared with, `wanted`.
    fn query(&mut self, query: &Query, scope: &Scope<'_>, wanted: &[Option<PgType>]) {
        let Some(scope) = scope.deeper() else { return };
        let named = scope.named_by(query);
        let scope = scope.knowing(&named);
        for table in query.with.iter().flat_map(|with| &with.cte_tables).take(CLAUSE_LIMIT) {
            self.query(&table.query, &scope, &[]);
        }
        self.body(&query.body, &scope, wanted, query.order_by.as_ref());
        match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                self.count(limit.as_ref(), &scope);
                self.count(offset.as_ref().map(|offset| &offset.value), &scope);
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
                self.count(Some(offset), &scope);
                self.count(Some(limit), &scope);
            }
            None => {}
        }
    }

    fn body(&mut self, body: &SetExpr, scope: &Scope<'_>, wanted: &[Option<PgType>], order: Option<&OrderBy>) {
        let Some(scope) = &scope.deeper() else { return };
        match body {
            SetExpr::Select(select) => self.select(select, scope, wanted, order),
            SetExpr::Query(query) => self.query(query, scope, wanted),
            SetExpr::SetOperation { left, right, .. } => {
                let types = |side| body_columns(side, scope).unwrap_or_default().into_iter().map(|own| own.pg_type);
                let (of_left, of_right): (Vec<_>, Vec<_>) = (types(left).collect(), types(right).collect());
                self.body(left, scope, &merged(wanted, &of_right), None);
                self.body(right, scope, &merged(wanted, &of_left), None);
            }
            SetExpr::Values(values) => {
                let rows: Vec<&[Expr]> = values.rows.iter().map(|row| row.content.as_slice()).collect();
                rows.iter().copied().flatten().for_each(|value| self.expression(value, scope));
                for position in 0..rows.first().map_or(0, |row| row.len()) {
                    let column: Vec<&Expr> = rows.iter().filter_map(|row| row.get(position)).collect();
                    match wanted.get(position).copied().flatten() {
                        None => self.agree(&column, scope),
                        wanted => column.iter().for_each(|value| self.open(value, wanted, scope)),
                    }
                }
            }
            SetExpr::Insert(statement) | SetExpr::Update(statement) | SetExpr::Delete(statement) => {
                self.statement(statement, scope);
            }
            _ => {}
        }
    }

    fn select(&mut self, select: &Select, scope: &Scope<'_>, wanted: &[Option<PgType>], order: Option<&OrderBy>) {
        let from = scope.from(&select.from);
        let within = scope.within(&from);
        select.from.iter().for_each(|table| self.joined(table, scope, &within));
        self.items(&select.projection, &within, wanted);
        let results = item_columns(&select.projection, &within).unwrap_or_default();
        let within = within.with_results(&results);
        self.condition(select.selection.as_ref(), &within);
        if let GroupByExpr::Expressions(expressions, _) = &select.group_by {
            expressions.iter().for_each(|expression| self.expression(expression, &within));
        }
        self.condition(select.having.as_ref(), &within);
        if let Some(OrderByKind::Expressions(expressions)) = order.map(|order| &order.kind) {
            expressions.iter().for_each(|by| self.expression(&by.expr, &within));
        }
    }

    fn items(&mut self, items: &[SelectItem], scope: &Scope<'_>, wanted: &[Option<PgType>]) {
        // A wildcard is any number of columns.
        let is_expression =
            |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
        let wanted = if items.iter().all(is_expression) { wanted } else { &[] };
        for (position, item) in items.iter().enumerate() {
            if let SelectItem::UnnamedExpr(expression) | SelectItem::ExprWithAlias { expr: expression, .. } = item {
                self.stored(expression, wanted.get(position).copied().flatten(), scope);
            }
        }
    }

    /// What stands in FROM: its queries see what is around, its conditions what it names.
    fn joined(&mut self, table: &TableWithJoins, scope: &Scope<'_>, within: &Scope<'_>) {
        let Some(scope) = &scope.deeper() else { return };
        let factors = std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation));
        for factor in factors.take(CLAUSE_LIMIT) {
            match factor {
                TableFactor::Derived { subquery, .. } => self.query(subquery, scope, &[]),
                TableFactor::NestedJoin { table_with_joins, .. } => self.joined(table_with_joins, scope, within),
                _ => {}
            }
        }
        for join in table.joins.iter().take(CLAUSE_LIMIT) {
            if let JoinOperator::Join(JoinConstraint::On(on))
            | JoinOperator::Inner(JoinConstraint::On(on))
            | JoinOperator::Left(JoinConstraint::On(on))
            | JoinOperator::LeftOuter(JoinConstraint::On(on))
            | JoinOperator::Right(JoinConstraint::On(on))
            | JoinOperator::RightOuter(JoinConstraint::On(on))
            | JoinOperator::FullOuter(JoinConstraint::On(on))
            | JoinOperator::CrossJoin(JoinConstraint::On(on)) = &join.join_operator
            {
                self.condition(Some(on), within);
            }
        }
    }
}

/// What is wanted of columns, and where nothing is, what others say.
fn merged(wanted: &[Option<PgType>], others: &[Option<PgType>]) -> Vec<Option<PgType>> {
    let at = |types: &[Option<PgType>], position: usize| types.get(position).copied().flatten();
    (0..wanted.len().max(others.len())).map(|position| at(wanted, position).or(at(others, position))).collect()
}
