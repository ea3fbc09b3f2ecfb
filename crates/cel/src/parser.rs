//! Tokens into a tree, with macros expanded, and upstream's wording of what is wrong.
//!
//! A fault that upstream's parser skips over is skipped over here; the first that it cannot skip ends the parsing.

use crate::ast::{Expr, ExprKind, MapEntry, StructField, op};
use crate::error::{CompileErrors, Issue};
use crate::escape::is_reserved;
use crate::lexer::{Kind, Token, tokens};
use crate::literals;
use crate::value::Value;

/// The longest expression, in characters.
const MAX_CHARACTERS: usize = 100_000;
/// How deep expressions nest, counting each link of a chain; upstream's limit.
const MAX_DEPTH: usize = 250;
/// How high a tree may be after macros are expanded: what walks it goes this deep on the stack.
const MAX_HEIGHT: usize = 300;

const FIRST: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, \
                     STRING, BYTES, IDENTIFIER}";
const FIRST_OR_OPTIONAL: &str = "{'[', '{', '(', '.', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, \
                                 NUM_UINT, STRING, BYTES, IDENTIFIER}";
const FIRST_OR_CLOSE: &str = "{'[', '{', '(', ')', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, \
                              NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Whether expressions may name values by `cel.bind(name, value, expression)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Binds {
    Yes,
    #[default]
    No,
}

/// A parsed expression, and where each of its nodes stands: line and column as in an [`Issue`].
pub(crate) struct Parsed {
    pub root: Expr,
    pub places: Vec<(i64, i64)>,
}

/// Parses an expression; `binds` says whether `cel.bind` is one of its macros.
pub(crate) fn parse(text: &str, binds: Binds) -> Result<Parsed, CompileErrors> {
    let fail = |message: String| {
        let issue = Issue { line: -1, column: -1, message };
        CompileErrors::new(vec![issue], text)
    };
    let size = text.chars().count();
    if size > MAX_CHARACTERS {
        let message =
            format!("expression code point size exceeds limit: size: {size}, limit {MAX_CHARACTERS}");
        return Err(fail(message));
    }
    let (tokens, unknown) = tokens(text);
    let lines = text.chars().enumerate().filter(|(_, c)| *c == '\n').map(|(at, _)| at + 1);
    let mut parser = Parser {
        tokens,
        next: 0,
        depth: 0,
        lines: std::iter::once(0).chain(lines).collect(),
        places: Vec::new(),
        issues: Vec::new(),
        duplicates: 0,
        binds,
    };
    for (at, unknown) in unknown {
        parser.report(at, format!("Syntax error: token recognition error at: '{unknown}'"));
    }
    let parsed = parser.whole();
    if text.is_empty() && parsed.is_err() {
        // An empty text has no line to be wrong in, and upstream prints column 0 for it.
        if let Some(issue) = parser.issues.first_mut() {
            issue.column = -1;
        }
    }
    match parsed {
        Ok(root) if parser.issues.is_empty() => {
            if root.height(MAX_HEIGHT) > MAX_HEIGHT {
                return Err(fail(format!("expression recursion limit exceeded: {MAX_DEPTH}")));
            }
            Ok(Parsed { root, places: parser.places })
        }
        _ => Err(CompileErrors::new(parser.issues, text)),
    }
}

/// Says that the parsing cannot go on; the fault is recorded already.
#[derive(Debug)]
pub(crate) struct Stop;

pub(crate) type Parse<T> = Result<T, Stop>;

pub(crate) struct Parser<'t> {
    tokens: Vec<Token<'t>>,
    next: usize,
    depth: usize,
    /// Where lines begin, in characters.
    lines: Vec<usize>,
    places: Vec<(i64, i64)>,
    issues: Vec<Issue>,
    /// How many nodes macros have copied, which bounds what nested copies can grow to.
    pub(crate) duplicates: usize,
    pub(crate) binds: Binds,
}

impl<'t> Parser<'t> {
    fn whole(&mut self) -> Parse<Expr> {
        let root = self.expr(FIRST)?;
        if self.peek().kind != Kind::End {
            let extra = self.peek().clone();
            let what = if self.tokens[self.next + 1].kind == Kind::End { "extraneous" } else { "mismatched" };
            let message = format!("Syntax error: {what} input '{}' expecting <EOF>", extra.text);
            return Err(self.stop(extra.at, message));
        }
        Ok(root)
    }

    // Tokens.

    fn peek(&self) -> &Token<'t> {
        &self.tokens[self.next]
    }

    fn after(&self) -> &Token<'t> {
        &self.tokens[(self.next + 1).min(self.tokens.len() - 1)]
    }

    fn advance(&mut self) -> Token<'t> {
        let token = self.tokens[self.next].clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn at(&self, symbol: &str) -> bool {
        is(self.peek(), symbol)
    }

    fn take(&mut self, symbol: &str) -> Option<usize> {
        if self.at(symbol) { Some(self.advance().at) } else { None }
    }

    /// A symbol that must come now; `follows` says what may come behind it, where its lack alone is reported.
    fn expect(&mut self, symbol: &str, expected: &str, follows: fn(&Token<'_>) -> bool) -> Parse<usize> {
        if let Some(at) = self.take(symbol) {
            return Ok(at);
        }
        let found = self.peek().clone();
        if is(self.after(), symbol) {
            self.report(
                found.at,
                format!("Syntax error: extraneous input '{}' expecting {expected}", found.text),
            );
            self.advance();
            return Ok(self.advance().at);
        }
        if follows(&found) {
            self.report(found.at, format!("Syntax error: missing '{symbol}' at '{}'", found.text));
            return Ok(found.at);
        }
        Err(self
            .stop(found.at, format!("Syntax error: mismatched input '{}' expecting {expected}", found.text)))
    }

    // Faults.

    fn place(&self, at: usize) -> (i64, i64) {
        let line = self.lines.partition_point(|start| *start <= at).max(1);
        (line as i64, (at - self.lines[line - 1]) as i64)
    }

    fn report(&mut self, at: usize, message: String) {
        let (line, column) = self.place(at);
        self.issues.push(Issue { line, column, message });
    }

    /// Records a fault at a node that is already there.
    pub(crate) fn report_at(&mut self, id: usize, message: String) {
        let (line, column) = self.places[id];
        self.issues.push(Issue { line, column, message });
    }

    fn stop(&mut self, at: usize, message: String) -> Stop {
        self.report(at, message);
        Stop
    }

    pub(crate) fn too_deep(&mut self) -> Stop {
        let message = format!("expression recursion limit exceeded: {MAX_DEPTH}");
        self.issues.push(Issue { line: -1, column: -1, message });
        Stop
    }

    /// Counts one more level; [`Parser::leave`] takes it back.
    fn enter(&mut self) -> Parse<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.too_deep()) } else { Ok(()) }
    }

    fn leave(&mut self, levels: usize) {
        self.depth -= levels;
    }

    // Nodes.

    pub(crate) fn node(&mut self, at: usize, kind: ExprKind) -> Expr {
        let place = self.place(at);
        self.node_at(place, kind)
    }

    pub(crate) fn node_at(&mut self, place: (i64, i64), kind: ExprKind) -> Expr {
        self.places.push(place);
        Expr { id: self.places.len() - 1, kind }
    }

    pub(crate) fn place_of(&self, id: usize) -> (i64, i64) {
        self.places[id]
    }

    fn call(&mut self, at: usize, function: &str, args: Vec<Expr>) -> Expr {
        self.node(at, ExprKind::Call { function: function.into(), target: None, args })
    }

    // The grammar.

    /// Skips a token that begins no expression where the next one does; stops where that one does not either.
    fn begin(&mut self, expected: &str) -> Parse<()> {
        if begins(self.peek()) {
            return Ok(());
        }
        let found = self.peek().clone();
        if found.kind != Kind::End && begins(self.after()) {
            self.report(
                found.at,
                format!("Syntax error: extraneous input '{}' expecting {expected}", found.text),
            );
            self.advance();
            return Ok(());
        }
        Err(self
            .stop(found.at, format!("Syntax error: mismatched input '{}' expecting {expected}", found.text)))
    }

    fn expr(&mut self, expected: &str) -> Parse<Expr> {
        self.enter()?;
        self.begin(expected)?;
        let condition = self.or()?;
        let Some(at) = self.take("?") else {
            self.leave(1);
            return Ok(condition);
        };
        self.begin(FIRST)?;
        let then = self.or()?;
        self.expect(":", "':'", begins)?;
        let otherwise = self.expr(FIRST)?;
        self.leave(1);
        Ok(self.call(at, op::CONDITIONAL, vec![condition, then, otherwise]))
    }

    /// Operands and the operators between them. Operators that bind alike associate to the left; a chain of one
    /// logical operator becomes a tree of the least height.
    fn or(&mut self) -> Parse<Expr> {
        let mut operands = vec![self.unary()?];
        let mut operators: Vec<(usize, Token<'t>)> = Vec::new();
        let mut links = 0;
        while let Some(level) = level_of(self.peek()) {
            while operators.last().is_some_and(|(last, _)| *last > level || (*last == level && level > AND)) {
                self.reduce(&mut operands, &mut operators);
            }
            if level > AND {
                self.enter()?;
                links += 1;
            }
            operators.push((level, self.advance()));
            self.begin(FIRST)?;
            operands.push(self.unary()?);
        }
        while !operators.is_empty() {
            self.reduce(&mut operands, &mut operators);
        }
        self.leave(links);
        Ok(operands.pop().expect("what was reduced leaves one operand"))
    }

    /// Joins the last operator with its operands, or the last ones where they are a chain of one logical operator.
    fn reduce(&mut self, operands: &mut Vec<Expr>, operators: &mut Vec<(usize, Token<'t>)>) {
        let Some((level, last)) = operators.last().cloned() else { return };
        let chain = match level > AND {
            true => 1,
            false => operators.iter().rev().take_while(|(other, _)| *other == level).count(),
        };
        let places: Vec<usize> =
            operators.drain(operators.len() - chain..).map(|(_, token)| token.at).collect();
        let terms = operands.split_off(operands.len() - chain - 1);
        let function = match level {
            OR => op::OR,
            AND => op::AND,
            _ => op::binary(last.text).expect("the levels hold binary operators only"),
        };
        let joined = self.balanced(function, &mut terms.into_iter(), &places);
        operands.push(joined);
    }

    /// A chain of one logical operator as a tree of the least height, its terms in their order.
    fn balanced(&mut self, function: &str, terms: &mut std::vec::IntoIter<Expr>, places: &[usize]) -> Expr {
        if places.is_empty() {
            return terms.next().expect("a chain has one term more than operators");
        }
        let middle = places.len() / 2;
        let left = self.balanced(function, terms, &places[..middle]);
        let right = self.balanced(function, terms, &places[middle + 1..]);
        self.call(places[middle], function, vec![left, right])
    }

    fn unary(&mut self) -> Parse<Expr> {
        for (symbol, function) in [("!", op::NOT), ("-", op::NEGATE)] {
            // A single minus before a number is part of the number.
            if !self.at(symbol) || (symbol == "-" && is_number(self.after())) {
                continue;
            }
            let at = self.peek().at;
            let mut count = 0;
            while self.take(symbol).is_some() {
                count += 1;
            }
            if !begins(self.peek()) || self.at("!") || (self.at("-") && !is_number(self.after())) {
                let found = self.peek().clone();
                return Err(self.stop(
                    found.at,
                    format!("Syntax error: mismatched input '{}' expecting {FIRST}", found.text),
                ));
            }
            let operand = self.member()?;
            return Ok(match count % 2 {
                0 => operand,
                _ => self.call(at, function, vec![operand]),
            });
        }
        self.member()
    }

    fn member(&mut self) -> Parse<Expr> {
        let mut operand = self.primary()?;
        let mut links = 0;
        loop {
            if let Some(at) = self.take(".") {
                self.enter()?;
                links += 1;
                operand = self.selection(operand, at)?;
            } else if let Some(at) = self.take("[") {
                self.enter()?;
                links += 1;
                let function = match self.take("?") {
                    Some(_) => op::OPT_INDEX,
                    None => op::INDEX,
                };
                let index = self.expr(if function == op::INDEX { FIRST_OR_OPTIONAL } else { FIRST })?;
                self.expect("]", "']'", ends)?;
                operand = self.call(at, function, vec![operand, index]);
            } else {
                self.leave(links);
                return Ok(operand);
            }
        }
    }

    /// What follows a dot: a field, an optional field, or a member call.
    fn selection(&mut self, operand: Expr, at: usize) -> Parse<Expr> {
        let optional = self.take("?").is_some();
        let name = self.peek().clone();
        match name.kind {
            Kind::Ident => {}
            Kind::EscapedIdent => {
                self.report(name.at, "unsupported syntax: '`'".into());
            }
            Kind::Symbol if matches!(name.text, "true" | "false" | "null") => {
                let message = format!("Syntax error: mismatched input '{}' expecting IDENTIFIER", name.text);
                return Err(self.stop(name.at, message));
            }
            _ => {
                let text = if name.kind == Kind::End { "" } else { name.text };
                let message = format!("Syntax error: no viable alternative at input '.{text}'");
                return Err(self.stop(name.at, message));
            }
        }
        self.advance();
        if optional {
            let field = self.node(name.at, ExprKind::Literal(Value::text(name.text)));
            return Ok(self.call(at, op::OPT_SELECT, vec![operand, field]));
        }
        if name.kind == Kind::Ident
            && let Some(open) = self.take("(")
        {
            let args = self.arguments()?;
            return self.call_or_macro(open, name.text, Some(operand), args);
        }
        let operand = Box::new(operand);
        Ok(self.node(at, ExprKind::Select { operand, field: name.text.into(), test_only: false }))
    }

    fn arguments(&mut self) -> Parse<Vec<Expr>> {
        let mut args = Vec::new();
        if self.take(")").is_some() {
            return Ok(args);
        }
        args.push(self.expr(FIRST_OR_CLOSE)?);
        while self.take(",").is_some() {
            args.push(self.expr(FIRST)?);
        }
        self.expect(")", "')'", ends)?;
        Ok(args)
    }

    fn primary(&mut self) -> Parse<Expr> {
        let token = self.peek().clone();
        match (token.kind, token.text) {
            (Kind::Symbol, "(") => {
                self.advance();
                let inner = self.expr(FIRST)?;
                self.expect(")", "')'", ends)?;
                Ok(inner)
            }
            (Kind::Symbol, "[") => self.list(),
            (Kind::Symbol, "{") => self.map(),
            (Kind::Symbol, ".") | (Kind::Ident, _) => self.name(),
            _ => self.literal(),
        }
    }

    /// A name, a call of a function, or the construction of an object.
    fn name(&mut self) -> Parse<Expr> {
        let leading = self.take(".").is_some();
        let token = self.peek().clone();
        if token.kind != Kind::Ident {
            let message = format!("Syntax error: mismatched input '{}' expecting IDENTIFIER", token.text);
            return Err(self.stop(token.at, message));
        }
        self.advance();
        if let Some((name, at)) = self.constructed(leading, token.text) {
            return self.object(name, at);
        }
        let name = if leading { format!(".{}", token.text) } else { token.text.to_owned() };
        if is_reserved(token.text) {
            self.report(token.at, format!("reserved identifier: {}", token.text));
        }
        match self.take("(") {
            Some(open) => {
                let args = self.arguments()?;
                self.call_or_macro(open, &name, None, args)
            }
            None => Ok(self.node(token.at, ExprKind::Ident(name))),
        }
    }

    /// The name and brace of an object's construction, where names with dots end in a brace here.
    fn constructed(&mut self, leading: bool, first: &str) -> Option<(String, usize)> {
        let mut name = if leading { format!(".{first}") } else { first.to_owned() };
        let mut at = self.next;
        loop {
            if is(&self.tokens[at], "{") {
                self.next = at + 1;
                return Some((name, self.tokens[at].at));
            }
            let follows = self.tokens.get(at + 1).filter(|token| token.kind == Kind::Ident);
            match follows {
                Some(token) if is(&self.tokens[at], ".") => name = format!("{name}.{}", token.text),
                _ => return None,
            }
            at += 2;
        }
    }

    fn object(&mut self, name: String, at: usize) -> Parse<Expr> {
        // The node comes before its fields, so that its place in the tables is known by then.
        let mut object = self.node(at, ExprKind::List { elements: Vec::new(), optional: Vec::new() });
        let mut fields = Vec::new();
        while !self.at("}") {
            if fields.is_empty() && self.take(",").is_some() {
                break;
            }
            let optional = self.take("?").is_some();
            let field = self.peek().clone();
            if !matches!(field.kind, Kind::Ident | Kind::EscapedIdent) {
                let expected = match fields.is_empty() {
                    true => "{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}",
                    false => "{'?', IDENTIFIER, ESC_IDENTIFIER}",
                };
                let message = format!("Syntax error: mismatched input '{}' expecting {expected}", field.text);
                return Err(self.stop(field.at, message));
            }
            if field.kind == Kind::EscapedIdent {
                self.report(field.at, "unsupported syntax: '`'".into());
            }
            self.advance();
            let colon = self.expect(":", "':'", begins)?;
            let value = self.expr(FIRST)?;
            let (line, column) = self.place(colon);
            self.places.push((line, column));
            let id = self.places.len() - 1;
            fields.push(StructField { id, name: field.text.into(), value, optional });
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect("}", "{'}', ','}", ends)?;
        object.kind = ExprKind::Struct { name, fields };
        Ok(object)
    }

    fn list(&mut self) -> Parse<Expr> {
        let at = self.advance().at;
        let mut elements = Vec::new();
        let mut optional = Vec::new();
        while !self.at("]") {
            if self.at(",") {
                if elements.is_empty() {
                    self.advance();
                    break;
                }
                let found = self.peek().at;
                return Err(self.stop(found, "Syntax error: mismatched input ',' expecting ']'".into()));
            }
            optional.push(self.take("?").is_some());
            elements.push(self.expr(FIRST)?);
            if self.take(",").is_none() {
                self.close("]")?;
                return Ok(self.node(at, ExprKind::List { elements, optional }));
            }
        }
        self.expect("]", "']'", ends)?;
        Ok(self.node(at, ExprKind::List { elements, optional }))
    }

    fn map(&mut self) -> Parse<Expr> {
        let at = self.advance().at;
        let mut entries = Vec::new();
        while !self.at("}") {
            if entries.is_empty() && self.take(",").is_some() {
                break;
            }
            let optional = self.take("?").is_some();
            let key = self.expr(FIRST)?;
            self.expect(":", "':'", |token| begins(token) && !is(token, "{"))?;
            let value = self.expr(FIRST)?;
            entries.push(MapEntry { key, value, optional });
            if self.take(",").is_none() {
                self.close("}")?;
                return Ok(self.node(at, ExprKind::Map(entries)));
            }
        }
        self.expect("}", "'}'", ends)?;
        Ok(self.node(at, ExprKind::Map(entries)))
    }

    /// The end of a list or map where a comma could stand as well.
    fn close(&mut self, symbol: &str) -> Parse<usize> {
        if self.at(symbol) || is(self.after(), symbol) {
            return self.expect(symbol, &format!("{{'{symbol}', ','}}"), ends);
        }
        let found = self.peek().clone();
        let message =
            format!("Syntax error: mismatched input '{}' expecting {{'{symbol}', ','}}", found.text);
        Err(self.stop(found.at, message))
    }

    fn literal(&mut self) -> Parse<Expr> {
        let start = self.peek().at;
        let negative = self.take("-").is_some();
        let token = self.advance();
        let value = match (token.kind, token.text) {
            (Kind::Int, text) => literals::int(text, negative),
            (Kind::Uint, text) => literals::uint(text),
            (Kind::Float, text) => literals::double(text, negative),
            (Kind::String | Kind::Bytes, text) => literals::quoted(text),
            (_, "true") => Ok(Value::Bool(true)),
            (_, "false") => Ok(Value::Bool(false)),
            (_, "null") => Ok(Value::Null),
            (_, text) => {
                let message = format!("Syntax error: mismatched input '{text}' expecting {FIRST}");
                return Err(self.stop(token.at, message));
            }
        };
        let value = value.unwrap_or_else(|message| {
            self.report(start, message.into());
            Value::Null
        });
        Ok(self.node(start, ExprKind::Literal(value)))
    }
}

fn is(token: &Token<'_>, symbol: &str) -> bool {
    token.kind == Kind::Symbol && token.text == symbol
}

/// Levels of operators, from those that bind least.
const OR: usize = 0;
const AND: usize = 1;

/// The level of a binary operator, where the token is one.
fn level_of(token: &Token<'_>) -> Option<usize> {
    if token.kind != Kind::Symbol {
        return None;
    }
    Some(match token.text {
        "||" => OR,
        "&&" => AND,
        "<" | "<=" | ">=" | ">" | "==" | "!=" | "in" => 2,
        "+" | "-" => 3,
        "*" | "/" | "%" => 4,
        _ => return None,
    })
}

fn is_number(token: &Token<'_>) -> bool {
    matches!(token.kind, Kind::Int | Kind::Float)
}

/// Whether an expression can start with the token.
fn begins(token: &Token<'_>) -> bool {
    match token.kind {
        Kind::Symbol => {
            matches!(token.text, "[" | "{" | "(" | "." | "-" | "!" | "true" | "false" | "null")
        }
        Kind::End | Kind::EscapedIdent => false,
        _ => true,
    }
}

/// Whether the token can stand behind a bracket that closes.
fn ends(token: &Token<'_>) -> bool {
    match token.kind {
        Kind::Symbol => !matches!(token.text, "{" | "(" | "!" | "true" | "false" | "null"),
        Kind::End => true,
        _ => false,
    }
}
