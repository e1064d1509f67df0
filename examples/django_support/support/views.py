"""The page of a customer, and the desk where people decide about the calls that wait."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.decorators import user_passes_test
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from completion import CompletionError, Conversation, Refusal, web
from support.models import Busy, Ticket

staff_only = user_passes_test(lambda user: isinstance(user, User) and user.is_staff)


def page(request: HttpRequest) -> HttpResponse:
    """The customer's messages; a POST adds one and waits for the answer."""
    if request.session.session_key is None:
        request.session.create()
    ticket, _ = Ticket.objects.get_or_create(visitor=request.session.session_key)
    problem = ""
    if said := request.POST.get("said", "").strip():
        problem = continue_ticket(ticket, lambda conversation: conversation.run(said))
        if not problem:
            return redirect("/")
    return render(request, "page.html", {"ticket": ticket, "chat": ticket.conversation(), "problem": problem})


@staff_only
def desk(request: HttpRequest) -> HttpResponse:
    """The tickets that need a person."""
    tickets = [(ticket, ticket.conversation()) for ticket in Ticket.objects.order_by("pk")]
    waiting = [(ticket, chat) for ticket, chat in tickets if chat.pending or ticket.is_running]
    return render(request, "desk.html", {"waiting": waiting, "problem": request.GET.get("problem", "")})


@staff_only
@require_POST
def decide(request: HttpRequest, number: int) -> HttpResponse:
    """Carry out a decision. The form names the call: it may not wait any more, because a colleague was faster."""
    ticket = get_object_or_404(Ticket, pk=number)
    is_allowed = request.POST["decision"] == "allow"
    decision = True if is_allowed else Refusal(request.POST.get("reason") or "The support desk does not allow it.")
    call_id = request.POST["call_id"]
    problem = continue_ticket(ticket, lambda conversation: conversation.resume({call_id: decision}).collect())
    return redirect(f"/desk?problem={problem}" if problem else "/desk")


@staff_only
@require_POST
def release(request: HttpRequest, number: int) -> HttpResponse:
    """A person has checked a ticket whose process was killed."""
    Ticket.objects.filter(pk=number).update(is_running=False)
    return redirect("/desk")


def continue_ticket(ticket: Ticket, run: Callable[[Conversation], object]) -> str:
    """Continue the conversation. Returns what went wrong, in words for the page; empty if nothing did."""
    try:
        with ticket.continued() as conversation:
            run(conversation)
    except Busy:
        return "An answer is being written."
    except CompletionError as error:
        return web.explain(error)
    except ValueError:
        return "This call does not wait any more."
    return ""
