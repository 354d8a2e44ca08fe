//! No integer is divided by zero.

use naga::valid::ModuleInfo;
use naga::{
    AddressSpace, BinaryOperator, Block, Expression, Function, Handle, Literal, Module, ScalarKind, Statement,
    TypeInner,
};

/// Every integer is divided by a constant above 0, or by one of the `fields` of the uniform that the host keeps from being
/// 0: wgpu's own checks are off.
pub fn check(module: &Module, info: &ModuleInfo, fields: &[String]) -> Result<(), String> {
    let functions = module.functions.iter().map(|(handle, function)| (Some(handle), function, &info[handle]));
    let main =
        module.entry_points.iter().enumerate().map(|(i, entry)| (None, &entry.function, info.get_entry_point(i)));
    for (handle, function, info) in functions.chain(main) {
        for (_, expression) in function.expressions.iter() {
            let Expression::Binary { op: BinaryOperator::Divide | BinaryOperator::Modulo, right, .. } = *expression
            else {
                continue;
            };
            let kind = info[right].ty.inner_with(&module.types).scalar_kind();
            if matches!(kind, Some(ScalarKind::Sint | ScalarKind::Uint)) {
                let divisor = is_divisor(module, fields, (handle, function), right);
                let of = function.name.as_deref().unwrap_or("main");
                if !divisor {
                    return Err(format!("{of} divides an integer by {:?}", function.expressions[right]));
                }
            }
        }
    }
    Ok(())
}

/// A function, and its handle if it is not the entry point.
type Of<'a> = (Option<Handle<Function>>, &'a Function);

fn is_divisor(module: &Module, fields: &[String], of: Of<'_>, divisor: Handle<Expression>) -> bool {
    let (handle, function) = of;
    let also = |expression| is_divisor(module, fields, of, expression);
    let literal = |expression: &Expression| match *expression {
        Expression::Literal(Literal::U32(value)) => value > 0,
        Expression::Literal(Literal::I32(value)) => value > 0,
        _ => false,
    };
    match function.expressions[divisor] {
        Expression::Constant(constant) => literal(&module.global_expressions[module.constants[constant].init]),
        Expression::Load { pointer } => {
            let Expression::AccessIndex { base, index } = function.expressions[pointer] else { return false };
            let Expression::GlobalVariable(variable) = function.expressions[base] else { return false };
            let variable = &module.global_variables[variable];
            let TypeInner::Struct { members, .. } = &module.types[variable.ty].inner else { return false };
            let name = members[index as usize].name.as_deref().unwrap_or_default();
            variable.space == AddressSpace::Uniform && fields.iter().any(|field| field == name)
        }
        Expression::Splat { value, .. } => also(value),
        Expression::Select { accept, reject, .. } => also(accept) && also(reject),
        // What every caller hands over.
        Expression::FunctionArgument(index) => {
            let functions = module.functions.iter().map(|(handle, function)| (Some(handle), function));
            functions.chain(module.entry_points.iter().map(|entry| (None, &entry.function))).all(|caller| {
                let mut calls = Vec::new();
                collect_calls(&caller.1.body, &mut calls);
                let mut ours = calls.iter().filter(|(callee, _)| Some(*callee) == handle);
                ours.all(|(_, arguments)| is_divisor(module, fields, caller, arguments[index as usize]))
            })
        }
        ref other => literal(other),
    }
}

fn collect_calls<'a>(block: &'a Block, calls: &mut Vec<(Handle<Function>, &'a [Handle<Expression>])>) {
    for statement in block {
        match statement {
            Statement::Call { function, arguments, .. } => calls.push((*function, arguments)),
            Statement::Block(inner) => collect_calls(inner, calls),
            Statement::If { accept: first, reject: second, .. }
            | Statement::Loop { body: first, continuing: second, .. } => {
                collect_calls(first, calls);
                collect_calls(second, calls);
            }
            Statement::Switch { cases, .. } => cases.iter().for_each(|case| collect_calls(&case.body, calls)),
            _ => {}
        }
    }
}
