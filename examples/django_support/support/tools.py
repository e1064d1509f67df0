"""What the model can do. Each refund waits for a person."""

from completion import Tool, tool

ORDERS = {17: {"item": "a red umbrella", "euros": 20.0}, 18: {"item": "a blue kite", "euros": 35.0}}


@tool
def look_up_order(order: int) -> dict[str, object]:
    """What was ordered, and what it cost."""
    return dict(ORDERS.get(order, {"error": "there is no such order"}))


@tool(approval=True)
def refund(order: int, euros: float) -> str:
    """Pays money back to the customer."""
    return f"{euros:.2f} euros were paid back for order {order}."  # call your shop here


TOOLS: list[Tool] = [look_up_order, refund]
